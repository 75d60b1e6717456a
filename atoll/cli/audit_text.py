"""What an audit found, for a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Drawn

from atoll.report.leak_tables import leak_tables
from atoll.report.leaks import leak_sentences, uncovered
from atoll.report.read import REPORT, read_run
from atoll.report.tables import Table
from atoll.report.words import seconds_text

__all__ = ["show_audit"]


def show_audit(path: Path) -> None:
    """The short of it, and a table for each part."""
    audit = read_run(path).audit
    assert audit is not None, "the audit has just been written"
    console = Console(highlight=False)
    for sentence in leak_sentences(audit):
        console.print(sentence, markup=False, soft_wrap=True)
    for table in leak_tables(audit):
        console.print()
        console.print(table.caption, markup=False, soft_wrap=True)
        console.print(_drawn(table))
        if table.more:
            console.print(table.more, markup=False, soft_wrap=True)
    console.print()
    for part, why in uncovered(audit):
        console.print(f"Not measured: {part}: {why}.", markup=False, soft_wrap=True)
    console.print(
        f"{seconds_text(audit.seconds)}. Attacks find less than the best one would. Everything is "
        f"in {path}; {path / REPORT} says what it means.",
        markup=False,
        soft_wrap=True,
    )


def _drawn(table: Table) -> Drawn:
    drawn = Drawn(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    drawn.add_column(table.head[0])
    for title in table.head[1:]:
        drawn.add_column(title, justify="right")
    for row in table.rows:
        drawn.add_row(*row)
    return drawn
