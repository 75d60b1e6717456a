"""Groups of a cohort that are summed by themselves, so that a rule can compare their means."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from atoll.core import Aggregator, Payload
from atoll.errors import QuorumError

__all__ = ["Apart", "groups_of"]


@dataclass(frozen=True)
class Apart:
    """Sums of groups of `size` clients or more, and the rule over their means."""

    size: int
    rule: Aggregator

    def folded(self, like: Payload, means: Sequence[Payload]) -> Payload:
        """The aggregate; like: the shapes of a reply."""
        state = self.rule.init(like)
        for one in means:
            state = self.rule.add(state, one)
        return self.rule.finish(state)


def groups_of(
    run: str, number: int, cohort: Sequence[str], size: int
) -> tuple[tuple[str, ...], ...]:
    """A cohort cut in random order into floor(n / size) groups, whose sizes differ by one at most.

    They follow from what all sides know of a round: its run, its number and its cohort.

    Raises:
        QuorumError: for a cohort that is smaller than a group.
    """
    count, told = len(cohort) // size, hashlib.sha256(b"atoll groups 1\0")
    if not count:
        raise QuorumError(
            f"a cohort of {len(cohort)} is smaller than a group, which has {size} clients (size of "
            "aggregator 'grouped'); ask more clients"
        )
    for part in (run, str(number), *sorted(cohort)):
        told.update(hashlib.sha256(part.encode()).digest())
    seed = told.digest()
    drawn = sorted(cohort, key=lambda name: hashlib.sha256(seed + name.encode()).digest())
    return tuple(tuple(drawn[at::count]) for at in range(count))
