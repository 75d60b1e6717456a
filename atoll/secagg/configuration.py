"""What all clients of one exchange agree on, and the hash of it that every message carries."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from atoll.errors import ProtocolError
from atoll.secagg.channels import Channel
from atoll.secagg.degree import Terms, degree, holds_together
from atoll.secagg.wire import Reader, blob, number

__all__ = ["Configuration", "Moment", "agree"]

_MAGIC = b"atoll secagg configuration 1\n"
_MOST = 65_536


@dataclass(frozen=True)
class Moment:
    """Which exchange of which run; `attempt` counts those that were given up before."""

    run: str
    round: int
    exchange: int
    attempt: int = 0


@dataclass(frozen=True)
class Configuration:
    """One secure sum.

    cohort: roster names, ascending; messages name clients by their place in it.
    neighbours: with how many others a client masks.   threshold: how many of a client and its
    neighbours open its secrets; no fewer than sign, where these are all.
    signers: how many confirm who is summed before that.
    floor: the fewest clients that are summed.

    A client makes its own, with `agree`, and compares no more than the hash: so a server that
    changes any of it gets no further than the first message.

    Raises:
        ProtocolError: when it could not keep what it promises.
    """

    moment: Moment
    cohort: tuple[str, ...]
    neighbours: int
    threshold: int
    signers: int
    floor: int
    channels: tuple[Channel, ...]

    def __post_init__(self) -> None:
        clients = len(self.cohort)
        if not 2 <= clients <= _MOST or list(self.cohort) != sorted(set(self.cohort)):
            raise ProtocolError(
                f"a cohort of {clients}: it needs 2 to {_MOST} clients, sorted by name, none twice"
            )
        _check_graph(self.neighbours, self.threshold, clients)
        if not clients < 2 * self.signers <= 2 * clients:
            raise ProtocolError(
                f"{self.signers} signers of {clients} clients: more than half must sign, or two "
                "sets of survivors could both be opened"
            )
        if not self.sparse and self.threshold < self.signers:
            raise ProtocolError(
                f"a threshold of {self.threshold} and {self.signers} signers: two sets of clients "
                "could open two attempts of one exchange; where all mask with all, no fewer must "
                "open than sign"
            )
        if clients < self.least or self.floor < 2:
            raise ProtocolError(
                f"a cohort of {clients} is smaller than the {max(self.least, 2)} that must be "
                "there at the end; ask more clients"
            )
        apart = not holds_together(self.neighbours, self.signers, self.floor)
        if self.sparse and apart and self.least_near < self.floor:
            raise ProtocolError(
                f"{self.neighbours} neighbours and a threshold of {self.threshold}: a server that "
                f"says who dropped out could split off groups of {self.least_near}, below the "
                f"floor of {self.floor}; give more neighbours, or all"
            )
        names = [channel.name for channel in self.channels]
        if not names or len(set(names)) != len(names):
            raise ProtocolError(f"channels {names}: there must be one, and none twice")
        for channel in self.channels:
            channel.check(clients)

    @property
    def sparse(self) -> bool:
        """Whether a client masks with some of the others, and not with all."""
        return self.neighbours < len(self.cohort) - 1

    @property
    def least(self) -> int:
        """The fewest survivors whose sum is opened."""
        return max(self.threshold, self.signers, self.floor)

    @property
    def least_near(self) -> int:
        """Of a client and its neighbours, how many must be there from the shares to the end.

        Fewer than `threshold` neighbours are corrupt. In a sparse graph so many stay that one of
        them is honest, whoever says which ones dropped out: what the client masked is in no smaller
        sum than of so many, or of all where the ring holds together.
        """
        return self.threshold + self.sparse

    @property
    def size(self) -> int:
        """Values of a masked vector."""
        return sum(channel.size for channel in self.channels)

    def place(self, name: str) -> int:
        """Where a client stands in the cohort.

        Raises:
            ProtocolError: for one that is not of it.
        """
        if name not in self._places:
            raise ProtocolError(f"{name} is not of this cohort; nothing from it is used")
        return self._places[name]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.cohort)}

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of all of it."""
        return hashlib.sha256(self.to_bytes()).digest()

    def to_bytes(self) -> bytes:
        """The one way to write it."""
        moment, numbers = self.moment, (self.neighbours, self.threshold, self.signers, self.floor)
        return b"".join((
            _MAGIC, blob(moment.run.encode()), number(moment.round, 8),
            number(moment.exchange, 8), number(moment.attempt),
            number(len(self.cohort)), *(blob(name.encode()) for name in self.cohort),
            *(number(each) for each in numbers),
            number(len(self.channels)), *(channel.to_bytes() for channel in self.channels),
        ))  # fmt: skip

    @classmethod
    def from_bytes(cls, raw: bytes) -> Configuration:
        """The other way.

        Raises:
            ProtocolError: for anything that `to_bytes` does not write.
        """
        reader = Reader(raw, "a configuration")
        if reader.take(min(len(raw), len(_MAGIC))) != _MAGIC:
            raise reader.wrong("does not begin as one")
        moment = Moment(reader.text(), reader.number(8), reader.number(8), reader.number())
        cohort = tuple(reader.text() for _ in range(_count(reader)))
        neighbours, threshold, signers, floor = (reader.number() for _ in range(4))
        channels = tuple(Channel.read(reader) for _ in range(_count(reader)))
        reader.end()
        return cls(moment, cohort, neighbours, threshold, signers, floor, channels)


def agree(
    moment: Moment, cohort: Sequence[str], channels: Sequence[Channel], terms: Terms
) -> Configuration:
    """The configuration that follows from a cohort, in any order, and from what is assumed of it.

    Raises:
        ConfigError: when the cohort is too small for these terms.
        ProtocolError: see `Configuration`.
    """
    found = degree(len(cohort), terms)
    return Configuration(
        moment, tuple(sorted(cohort)), found.neighbours, found.threshold, found.signers,
        terms.floor, tuple(channels),
    )  # fmt: skip


def _check_graph(neighbours: int, threshold: int, clients: int) -> None:
    if neighbours != clients - 1 and (neighbours % 2 or not 0 < neighbours < clients - 1):
        raise ProtocolError(
            f"{neighbours} neighbours in a cohort of {clients}: give an even number below "
            f"{clients - 1}, or all {clients - 1}"
        )
    if not neighbours + 1 < 2 * threshold <= 2 * (neighbours + 1):
        raise ProtocolError(
            f"a threshold of {threshold} among {neighbours + 1}: it must be more than half of "
            "them, or two halves could open both secrets of one client"
        )


def _count(reader: Reader) -> int:
    count = reader.number()
    # Each takes four bytes at least.
    if count > reader.left() // 4:
        raise reader.wrong(f"counts {count} parts in {reader.left()} bytes")
    return count
