"""How answers of a chat are shown: as they come, side by side, or as lines of JSON."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from atoll.cli.output import note

if TYPE_CHECKING:
    from atoll.trained.chat import Answer

__all__ = ["answered"]

COLUMNS = 100
"""Characters of a terminal in which two answers stand side by side."""
# A model may write what a terminal takes for orders.
ORDERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def answered(facts: Mapping[str, Any], answers: Mapping[str, Answer], *, json: bool) -> None:
    """Let the answers come, and show them; at a terminal, Ctrl-C stops them."""
    live = sys.stdin.isatty()
    try:
        if json:
            _as_line(facts, answers)
        elif len(answers) > 1 and Console().is_terminal and Console().width >= COLUMNS:
            _side_by_side(answers)
        else:
            _one_by_one(answers)
    except KeyboardInterrupt:
        if not live:
            raise
        note("\n(stopped)")
        return
    cut = [name for name, answer in answers.items() if not answer.complete]
    if live and cut:
        note(f"({' and '.join(cut)}: cut at the longest answer; --max-new-tokens sets it)")


def _as_line(facts: Mapping[str, Any], answers: Mapping[str, Answer]) -> None:
    from atoll.disk.files import json_text

    texts = {name: "".join(answer) for name, answer in answers.items()}
    complete = {name: answer.complete for name, answer in answers.items()}
    typer.echo(json_text({**facts, "answers": texts, "complete": complete}))
    sys.stdout.flush()


def _one_by_one(answers: Mapping[str, Answer]) -> None:
    for name, answer in answers.items():
        if len(answers) > 1:
            typer.echo(f"{name}: ", nl=False)
        for piece in answer:
            typer.echo(_harmless(piece) if sys.stdout.isatty() else piece, nl=False)
            sys.stdout.flush()
        typer.echo()


def _side_by_side(answers: Mapping[str, Answer]) -> None:
    """Both grow at once: a piece of each in turn."""
    console = Console(highlight=False)
    coming: dict[str, Iterator[str]] = {name: iter(answer) for name, answer in answers.items()}
    # What is taller than the terminal is cut until the end, when all of it is printed.
    try:
        with Live(console=console, transient=True, auto_refresh=False) as display:
            while coming:
                for name, pieces in list(coming.items()):
                    if next(pieces, None) is None:
                        del coming[name]
                display.update(_columns(answers), refresh=True)
    finally:
        console.print(_columns(answers))


def _columns(answers: Mapping[str, Answer]) -> Table:
    table = Table(box=None, expand=True, pad_edge=False, padding=(0, 2, 0, 0))
    for name in answers:
        table.add_column(name, ratio=1, overflow="fold")
    table.add_row(*(Text(_harmless(answer.text)) for answer in answers.values()))
    return table


def _harmless(text: str) -> str:
    return ORDERS.sub("\ufffd", text)
