"""Which round's model a run ends with, and when it stops early, by the clients' held-out rows.

The common test set takes no part: what is chosen by a set of rows is not measured by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from atoll.core import State
from atoll.experiment.setup import Setup
from atoll.runs.checkpoints import read
from atoll.runs.lines import RoundLine
from atoll.runs.resume import Progress
from atoll.runs.run_dir import RunDirectory

__all__ = ["best_round", "chosen", "stalled"]


def best_round(setup: Setup, lines: Sequence[RoundLine]) -> int | None:
    """The first round with the best metric on held-out rows; None where nothing was measured."""
    measured = [line for line in lines if line.own is not None]
    if not measured:
        return None
    sign = -1 if setup.bench.objective.metric.higher_is_better else 1
    return min(measured, key=lambda line: (sign * (line.own or 0.0), line.round)).round


def stalled(setup: Setup, lines: Sequence[RoundLine]) -> bool:
    """Whether the held-out metric has not improved for `evaluate.patience` evaluations."""
    patience = setup.experiment.evaluate.patience
    measured = [line for line in lines if line.own is not None]
    if patience is None or len(measured) <= patience:
        return False
    best = best_round(setup, lines)
    return best is not None and best < measured[-patience].round


def chosen(setup: Setup, run: RunDirectory, done: Progress, note: Callable[[str], None]) -> State:
    """The last model, or the best one where `evaluate.load_best` asks for it."""
    best = best_round(setup, done.lines)
    if not setup.experiment.evaluate.load_best or best in (None, done.position.round):
        return done.position.server
    note(f"the model of round {best} is taken: the best on held-out rows")
    return read(run.checkpoints / f"best-{best}").position.server
