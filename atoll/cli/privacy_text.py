"""A ledger, for people."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from atoll.accounting import Everyone, Fixed, Sampling
from atoll.ledger import Told
from atoll.words import counted

__all__ = ["show_ledger", "show_verified"]


def show_ledger(told: Told) -> None:
    """A line for each release, and what they come to."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for title in ("time", "run", "round", "noise", "cohort", "epsilon so far"):
        table.add_column(title, justify="left" if title in ("time", "run", "cohort") else "right")
    for line in told.lines:
        entry = line.entry
        table.add_row(
            line.time,
            entry.run[:8],
            str(entry.round),
            f"{entry.release.noise_multiplier:.4g}",
            _cohort(entry.release.sampling),
            _number(line.epsilon),
        )
    console = Console(highlight=False)
    console.print(table)
    console.print()
    show_verified(told)


def show_verified(told: Told) -> None:
    """One sentence."""
    if not told.lines:
        text = "Nothing was released: epsilon is 0."
    else:
        last = told.lines[-1]
        runs = len({line.entry.run for line in told.lines})
        whom = "whole clients" if last.entry.release.unit == "client" else "single rows"
        text = (
            f"Whole: {counted(len(told.releases), 'release')} of {counted(runs, 'run')} on data "
            f"{told.begin.data[:12]} come to epsilon {_number(last.epsilon)} at delta "
            f"{last.delta:g}, for {whom}, {told.spent(last.delta).adjacency}."
        )
    Console(highlight=False).print(text, markup=False, soft_wrap=True)


def _cohort(sampling: Sampling) -> str:
    if isinstance(sampling, Everyone):
        return "everyone"
    if isinstance(sampling, Fixed):
        return f"{sampling.size} of {sampling.population}"
    return f"coins of {sampling.rate:.4g}"


def _number(epsilon: float | None) -> str:
    return "without bound" if epsilon is None else f"{epsilon:.4g}"
