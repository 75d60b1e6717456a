"""What a plan knows of rows: how long they are, and what a run has computed of them so far."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from atoll.experiment.setup import Setup
from atoll.plan.features import Features, features_of

__all__ = ["COMMON", "Fresh", "Met", "Rows", "rows_of"]

COMMON = ("", "test")
"""The key of the common test set."""


@dataclass(frozen=True)
class Fresh:
    """Rows that a run meets for the first time, and their tokens."""

    rows: float = 0.0
    tokens: float = 0.0

    def __add__(self, other: Fresh) -> Fresh:
        """Both."""
        return Fresh(self.rows + other.rows, self.tokens + other.tokens)


class Met:
    """Follows which rows have been run, where frozen blocks' outputs are kept.

    keeps: whether they are; else no row is ever met for the first time.
    """

    def __init__(self, lengths: Callable[[str, str], Sequence[int]], *, keeps: bool) -> None:
        self._lengths, self._keeps = lengths, keeps
        self._share: dict[tuple[str, str], float] = {}

    def run(self, client: str, split: str, passes: float = 1.0) -> Fresh:
        """Run a client's rows so many times; what of them is new."""
        known = self._share.get((client, split), 0.0)
        new = min(passes, 1.0 - known)
        if not self._keeps or new <= 0:
            return Fresh()
        self._share[client, split] = known + new
        lengths = self._lengths(client, split)
        return Fresh(new * len(lengths), new * sum(lengths))


@dataclass(frozen=True)
class Rows:
    """lengths: (client, split) -> of encoded rows.   features, met: what a run holds of them."""

    lengths: Callable[[str, str], Sequence[int]]
    features: Features
    met: Met

    def everything(self, setup: Setup) -> Fresh:
        """All rows, each once."""
        keys = [(name, split) for name in setup.data.clients for split in ("train", "test")]
        each = [self.lengths(*key) for key in (*keys, COMMON)]
        return Fresh(sum(map(len, each)), sum(map(sum, each)))


def rows_of(setup: Setup) -> Rows:
    """Of a run that has not begun; rows are encoded once, as for the run."""

    @functools.cache
    def lengths(client: str, split: str) -> tuple[int, ...]:
        if (client, split) == COMMON:
            return tuple(len(one) for one in setup.common_test() or ())
        return tuple(len(one) for one in setup.bench.examples(client, split))

    keeps = setup.bench.prefix is not None
    return Rows(lengths, features_of(setup), Met(lengths, keeps=keeps))
