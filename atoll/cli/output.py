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
    "command_line",
    "emit",
    "note",
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
    from atoll.disk.files import json_text

    typer.echo(json_text(value, indent=2))


def note(text: str) -> None:
    """A line beside the result."""
    typer.echo(text, err=True)


def command_line(*words: str | Path) -> str:
    """Words as they can be pasted into a shell."""
    return shlex.join(map(str, words))
