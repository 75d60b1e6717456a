"""What a client keeps between two steps, in bytes, for its own disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from atoll.secagg.configuration import Configuration
from atoll.secagg.keys import KEY
from atoll.secagg.messages import Advert, Kind, Survivors, read_each, write_each
from atoll.secagg.shamir import SHARE
from atoll.secagg.wire import Reader, blob, number, read_items, read_list, write_items, write_list

__all__ = ["ClientState", "Step"]

_MAGIC = b"atoll secagg client 1\n"


class Step(IntEnum):
    """The last thing that a client did."""

    ADVERTISED = 1
    SHARED = 2
    MASKED = 3
    SIGNED = 4
    OPENED = 5


@dataclass(frozen=True)
class ClientState:
    """One client in one exchange.

    secret: all of the client's keys and coins follow from these 32 bytes.
    adverts: its own; everyone's once it has shared.   agreed: with each neighbour, for the shares
    between them, until these are here.   received: the two shares of each neighbour.
    root: of the broadcast that it was sent.   survivors: what it has signed.
    After the last step there is no secret and no share left.
    """

    configuration: Configuration
    place: int
    secret: bytes = field(repr=False)
    step: Step = Step.ADVERTISED
    adverts: Mapping[int, Advert] = field(default_factory=dict)
    agreed: Mapping[int, bytes] = field(default_factory=dict, repr=False)
    received: Mapping[int, bytes] = field(default_factory=dict, repr=False)
    root: bytes = b""
    survivors: Survivors | None = None

    @property
    def name(self) -> str:
        """The client's name in the roster."""
        return self.configuration.cohort[self.place]

    def erased(self) -> ClientState:
        """What is left when all is done: that it is."""
        return ClientState(self.configuration, self.place, bytes(KEY), Step.OPENED)

    def to_bytes(self) -> bytes:
        """For a file that its owner alone may read."""
        adverts = {place: advert.to_bytes() for place, advert in self.adverts.items()}
        survivors = self.survivors or Survivors((), ())
        body = b"".join((
            _MAGIC, blob(self.configuration.to_bytes()), number(self.place), number(self.step, 1),
            self.secret, blob(self.root),
            blob(write_each(Kind.ADVERTS, self.configuration, adverts)),
            blob(write_items(self.agreed)), blob(write_items(self.received)),
            number(self.survivors is not None, 1),
            write_list(survivors.alive), write_list(survivors.dropped),
        ))  # fmt: skip
        return body + hashlib.sha256(body).digest()

    @classmethod
    def from_bytes(cls, raw: bytes) -> ClientState:
        """The other way.

        Raises:
            ProtocolError: when it was changed or cut.
        """
        reader = Reader(raw[:-KEY], "the state of a client")
        if hashlib.sha256(raw[:-KEY]).digest() != raw[-KEY:]:
            raise reader.wrong("was changed or cut")
        if reader.take(min(len(_MAGIC), reader.left())) != _MAGIC:
            raise reader.wrong("does not begin as one")
        configuration = Configuration.from_bytes(reader.blob())
        clients = len(configuration.cohort)
        place, step, secret, root = (
            reader.number(),
            reader.number(1),
            reader.take(KEY),
            reader.blob(),
        )
        adverts = read_each(Kind.ADVERTS, configuration, reader.blob())
        agreed = read_items(Reader(reader.blob(), "agreements"), KEY, clients)
        received = read_items(Reader(reader.blob(), "shares"), 2 * SHARE, clients)
        has, alive = reader.number(1), read_list(reader, clients)
        survivors = Survivors(alive, read_list(reader, clients))
        reader.end()
        return cls(
            configuration, place, secret, Step(step),
            {each: Advert.from_bytes(packed) for each, packed in adverts.items()},
            agreed, received, root, survivors if has else None,
        )  # fmt: skip
