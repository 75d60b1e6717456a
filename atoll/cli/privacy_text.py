"""A ledger, for people."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from atoll.accounting import Everyone, Fixed, Release, Sampling
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
            "" if entry.release is None else f"{entry.release.noise_multiplier:.4g}",
            "asked" if entry.release is None else _cohort(entry.release),
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
        last, releases = told.lines[-1], [release for _, release in told.releases]
        runs = counted(len({run for run, _ in told.releases}), "run")
        units = {release.unit for release in releases}
        text = (
            f"Whole: {counted(sum(one.steps for one in releases), 'release')} of {runs} on data "
            f"{told.begin.data[:12]} come to epsilon {_number(last.epsilon)} at delta "
            f"{last.delta:g}, for {'whole clients' if 'client' in units else 'single rows'}, "
            f"{told.spent(last.delta).adjacency}."
        )
    Console(highlight=False).print(text, markup=False, soft_wrap=True)


def _cohort(release: Release) -> str:
    often, how = "" if release.steps == 1 else f"{release.steps} times ", release.sampling
    return often + _drawn(how)


def _drawn(sampling: Sampling) -> str:
    if isinstance(sampling, Everyone):
        return "everyone"
    if isinstance(sampling, Fixed):
        return f"{sampling.size} of {sampling.population}"
    return f"coins of {sampling.rate:.4g}"


def _number(epsilon: float | None) -> str:
    return "without bound" if epsilon is None else f"{epsilon:.4g}"
