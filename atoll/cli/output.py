"""Where words go: results to stdout, everything else to stderr."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "Format",
    "FormatOption",
    "bytes_text",
    "command_line",
    "emit",
    "note",
    "seconds_text",
]


class Format(StrEnum):
    """How a result is written."""

    text = "text"
    json = "json"


FormatOption = Annotated[
    Format,
    typer.Option(
        "--format",
        show_default=False,
        help="text (the default) for people; json: one document on stdout, the rest on stderr.",
    ),
]


def emit(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """One JSON document on stdout."""
    from atoll.experiment.files import json_text

    typer.echo(json_text(value, indent=2))


def note(text: str) -> None:
    """A line beside the result."""
    typer.echo(text, err=True)


def command_line(*words: str | Path) -> str:
    """Words as they can be pasted into a shell."""
    return shlex.join(map(str, words))


def bytes_text(count: float) -> str:
    """`980 B`, `3.1 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def seconds_text(seconds: float) -> str:
    """`4.2 s`, `3:07`, `1:02:03`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
