"""What a plan knows of rows: how long they are, and what a run has computed of them so far."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from atoll.experiment.setup import Setup
from atoll.local.prefix import KIN
from atoll.plan.features import Features, features_of
from atoll.plan.load import Load, forward_load

__all__ = ["COMMON", "Met", "Rows", "rows_of"]

COMMON = ("", "test")
"""The key of the common test set."""


class Met:
    """Follows which rows have been run, where frozen blocks' outputs are kept.

    keeps: whether they are; else no row is ever met for the first time.
    """

    def __init__(self, lengths: Callable[[str, str], Sequence[int]], *, keeps: bool) -> None:
        self._lengths, self._keeps = lengths, keeps
        self._share: dict[tuple[str, str], float] = {}

    def run(self, client: str, split: str, passes: float = 1.0) -> Load:
        """Run a client's rows so many times; what of them is new, and runs with its kin."""
        known = self._share.get((client, split), 0.0)
        new = (1.0 - known) * (1.0 - max(1.0 - passes, 0.0) ** KIN)
        if not self._keeps or new <= 0:
            return Load()
        self._share[client, split] = known + new
        return forward_load(self._lengths(client, split), KIN).times(new)


@dataclass(frozen=True)
class Rows:
    """lengths: (client, split) -> of encoded rows.   features, met: what a run holds of them."""

    lengths: Callable[[str, str], Sequence[int]]
    features: Features
    met: Met

    def everything(self, setup: Setup) -> tuple[int, int]:
        """How many rows there are, and how many tokens."""
        keys = [(name, split) for name in setup.data.clients for split in ("train", "test")]
        each = [self.lengths(*key) for key in (*keys, COMMON)]
        return sum(map(len, each)), sum(map(sum, each))


def rows_of(setup: Setup) -> Rows:
    """Of a run that has not begun; rows are encoded once, as for the run."""

    @functools.cache
    def lengths(client: str, split: str) -> tuple[int, ...]:
        if (client, split) == COMMON:
            return tuple(len(one) for one in setup.common_test() or ())
        return tuple(len(one) for one in setup.bench.examples(client, split))

    keeps = setup.bench.prefix is not None
    return Rows(lengths, features_of(setup), Met(lengths, keeps=keeps))
