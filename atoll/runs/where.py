"""Who watches a run, and where its clients are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from atoll.core import Runtime, State
from atoll.experiment.runtime import open_runtime
from atoll.experiment.setup import Setup
from atoll.runs.compare import Comparison, compare
from atoll.runs.lines import RoundLine

__all__ = ["HERE", "Observer", "Where"]


@dataclass(frozen=True)
class Observer:
    """Who watches: notes, steps of long work, rounds of an earlier process, and finished rounds.

    began: a server's setup is known only after its clients have come.
    step: (what, how many of it are done, of how many).
    """

    note: Callable[[str], None] = lambda text: None
    step: Callable[[str, int, int], None] = lambda what, done, total: None
    resumed: Callable[[Sequence[RoundLine]], None] = lambda lines: None
    round: Callable[[RoundLine], None] = lambda line: None
    began: Callable[[Setup], None] = lambda setup: None


@dataclass(frozen=True)
class Where:
    """Where the clients are, and so how they are asked and how models are compared.

    opened: (setup, run directory, note) -> the runtime.
    compared: (setup, state, rounds that it had, observer) -> the arms, measured.
    """

    opened: Callable[[Setup, Path, Callable[[str], None]], AbstractContextManager[Runtime]]
    compared: Callable[[Setup, State, int, Observer], Comparison]


def _compared_here(setup: Setup, state: State, rounds: int, observer: Observer) -> Comparison:
    return compare(setup, state, rounds=rounds, step=observer.step, note=observer.note)


HERE = Where(open_runtime, _compared_here)
"""A simulation: rows are here, and the file says where clients run."""
