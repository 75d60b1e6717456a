"""Who masks with whom: a ring over a random order, each with the nearest on both sides.

Source: Bell, Bonawitz, Gascón, Lepoint, Raykova, Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead (CCS 2020): a Harary graph over a random permutation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

__all__ = ["Ring", "ring"]


@dataclass(frozen=True)
class Ring:
    """Members in a random order, each with `degree` neighbours, or all others where they are fewer.

    members: ascending.   degree: even, unless it reaches all others.
    seed: draws the order; everyone who has it has the same.
    """

    members: tuple[int, ...]
    degree: int
    seed: bytes

    def near(self, member: int) -> tuple[int, ...]:
        """The neighbours of a member, ascending; whoever is one has it as one."""
        count, half = len(self.members), self.degree // 2
        if self.degree >= count - 1:
            return tuple(each for each in self.members if each != member)
        at = self._places[member]
        steps = (*range(-half, 0), *range(1, half + 1))
        return tuple(sorted(self.order[(at + step) % count] for step in steps))

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The ring, from where it was cut."""

        def drawn(member: int) -> bytes:
            return hashlib.sha256(self.seed + member.to_bytes(4, "big")).digest()

        return tuple(sorted(self.members, key=drawn))

    @cached_property
    def _places(self) -> dict[int, int]:
        return {member: at for at, member in enumerate(self.order)}


def ring(members: Iterable[int], degree: int, seed: bytes) -> Ring:
    """The ring whose order `seed` draws."""
    return Ring(tuple(sorted(members)), degree, seed)
