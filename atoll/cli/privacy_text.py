"""A ledger, for people."""

from __future__ import annotations

import math

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from atoll.accounting import Event, Everyone, Fixed, InTurns, Present, Sampling, Shared
from atoll.accounting.statement import in_words
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
            "" if entry.release is None else _noise(entry.release),
            "asked" if entry.release is None else _cohort(entry.release),
            in_words(line.epsilon),
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
        spent = told.spent(last.delta)
        seen = "" if spent.readers is None else (
            f" against the server, and to epsilon {in_words(spent.readers)} against readers of "
            "models"
        )  # fmt: skip
        units = {release.unit for release in releases}
        text = (
            f"Whole: {counted(sum(one.steps for one in releases), 'release')} of {runs} on data "
            f"{_short(told.begin.data)} come to epsilon {in_words(last.epsilon)} at delta "
            f"{last.delta:g}, for {'whole clients' if 'client' in units else 'single rows'}, "
            f"{spent.adjacency}{seen}."
        )
    Console(highlight=False).print(text, markup=False, soft_wrap=True)


def _short(data: str) -> str:
    """A fingerprint by its first letters; what stands before it, or a site's name, whole."""
    before, _, name = data.rpartition(" ")
    return f"{before} {name[:12] if len(name) == 64 else name}".strip()


def _noise(release: Event) -> str:
    """In units of what one client changes."""
    if not isinstance(release, Shared):
        return f"{release.noise_multiplier:.4g}"
    alone = release.mechanism == "gaussian"
    shares = 1 if alone else release.survivors - release.colluding
    return f"{release.sigma * math.sqrt(shares) / release.norm:.4g}"


def _cohort(release: Event) -> str:
    often = "" if release.steps == 1 else f"{release.steps} times "
    if isinstance(release, Shared):
        return f"{often}{release.survivors} of {release.asked}"
    return often + _drawn(release.sampling)


def _drawn(sampling: Sampling) -> str:
    if isinstance(sampling, Everyone | Present):
        return "everyone"
    if isinstance(sampling, InTurns):
        return "in turns"
    if isinstance(sampling, Fixed):
        return f"{sampling.size} of {sampling.population}"
    return f"coins of {sampling.rate:.4g}"
