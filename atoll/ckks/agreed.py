"""What clients and the holder of the key of one encrypted sum agree on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from atoll.ckks.scheme import MOST_CLIENTS, SLOTS
from atoll.errors import ProtocolError
from atoll.secagg import Channel, Moment
from atoll.secagg.wire import blob, number

__all__ = ["MOST_VALUES", "Agreed", "rows_of"]

MOST_VALUES = 2**21
"""Values of a sum: about 59 MB of each client."""


@dataclass(frozen=True)
class Agreed:
    """Each side makes its own, and compares no more than the hash.

    holder: who has the key.   floor: the fewest clients whose sum it decrypts.

    Raises:
        ProtocolError: when it could not keep what it promises.
    """

    moment: Moment
    cohort: tuple[str, ...]
    holder: str
    floor: int
    channels: Sequence[Channel]

    def __post_init__(self) -> None:
        clients = len(self.cohort)
        if list(self.cohort) != sorted(set(self.cohort)):
            raise ProtocolError("a cohort is sorted by name, and holds nobody twice")
        if not max(self.floor, 2) <= clients <= MOST_CLIENTS:
            raise ProtocolError(
                f"a cohort of {clients}: an encrypted sum is of {max(self.floor, 2)} "
                f"(privacy.min_survivors) to {MOST_CLIENTS} clients"
            )
        if not 0 < self.size <= MOST_VALUES:
            raise ProtocolError(
                f"{self.size:,} values: an encrypted sum has {MOST_VALUES:,} at most; send a "
                "smaller update, or use masks (secure_aggregation: true)"
            )

    @property
    def size(self) -> int:
        """Values of a client."""
        return sum(channel.size for channel in self.channels)

    @property
    def rows(self) -> int:
        """Ciphertexts of a client."""
        return rows_of(self.size)

    def place(self, name: str) -> int:
        """Where a client stands in the cohort.

        Raises:
            ProtocolError: for one that is not of it.
        """
        if name not in self.cohort:
            raise ProtocolError(f"{name} is not of this cohort; nothing from it is used")
        return self.cohort.index(name)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of all of it."""
        moment = self.moment
        return hashlib.sha256(b"".join((
            b"atoll encrypted sum 2\n", blob(moment.run.encode()), number(moment.round, 8),
            number(moment.exchange, 8), number(moment.attempt), blob(self.holder.encode()),
            number(self.floor), number(len(self.cohort)),
            *(blob(name.encode()) for name in self.cohort),
            number(len(self.channels)), *(channel.to_bytes() for channel in self.channels),
        ))).digest()  # fmt: skip


def rows_of(size: int) -> int:
    """Ciphertexts of so many values."""
    return -(-size // SLOTS)
