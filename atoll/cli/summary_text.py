"""A summary for people: the table, whether federating helped, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from atoll.accounting import stated, summed
from atoll.cli.output import command_line
from atoll.report.read import REPORT
from atoll.report.records import Summary
from atoll.report.tables import arms_table, level_of
from atoll.report.verdict import differences, verdict
from atoll.report.words import bytes_text, seconds_text
from atoll.words import counted

__all__ = ["show_arms", "show_run"]


def show_run(
    summary: Mapping[str, Any], path: Path, *, common_test: bool, rows_here: bool = True
) -> None:
    """All that `atoll run` says at its end, and `atoll server`, which has no rows."""
    arms = {"federated": summary["final"], **summary["baselines"]}
    show_arms(summary, arms, common_test=common_test)
    typed = Summary.model_validate(summary)
    report = path / REPORT
    drawn = report.is_file()
    lines = [
        *filter(None, [verdict(typed)]),
        *differences(typed),
        *filter(None, [stated(summary), summed(summary)]),
        f"{counted(summary['num_rounds'], 'round')}, "
        f"{counted(summary['exchanges'], 'statistics exchange')}: "
        f"{bytes_text(summary['bytes_up'])} up, {bytes_text(summary['bytes_down'])} down, "
        f"{seconds_text(summary['seconds'])}",
        f"Everything is in {path}" + (f"; look at {report} in a browser" if drawn else ""),
        "Next:",
        *([] if drawn else [f"  {command_line('atoll', 'report', path)}"]),
        *_next(summary["task"], path, [] if rows_here else ["--data", "ROWS"]),
    ]
    _say("\n".join(lines))


def _next(task: str, path: Path, data: Sequence[str]) -> Iterator[str]:
    """What a finished run of a task is good for."""
    yield f"  {command_line('atoll', 'eval', path, *data)}"
    if task in ("causal-lm", "preference"):
        yield f"  {command_line('atoll', 'chat', path)} --compare"
    else:
        asked = "--image new.png" if task == "image-classification" else '--text "..."'
        yield f"  {command_line('atoll', 'predict', path)} {asked}"
    yield f"  {command_line('atoll', 'export', path)} --merge --output merged"
    yield "  atoll recipes"


def show_arms(
    summary: Mapping[str, Any], arms: Mapping[str, float | None], *, common_test: bool
) -> None:
    """One row for each way to a model."""
    baselines = {name: value for name, value in arms.items() if name != "federated"}
    typed = Summary.model_validate({**summary, "baselines": baselines})
    found = arms_table(typed, common_test=common_test)
    if found is None:
        return
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column(typed.metric)
    # An interval has a line of its own: the table fits on 80 columns.
    shown = [place for place, title in enumerate(found.head) if title != level_of(typed)]
    for place in shown[1:]:
        table.add_column(found.head[place], justify="right")
    for row in found.rows:
        table.add_row(*(row[place] for place in shown))
    console = Console(highlight=False)
    console.print(table)
    console.print()


def _say(text: str) -> None:
    Console(highlight=False).print(text, markup=False, soft_wrap=True)
