"""Rows to predict for: a file, lines of stdin, or texts on the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atoll.data.tables import Table, read_table
from atoll.errors import DataError
from atoll.trained.load_run import TrainedRun
from atoll.trained.new_rows import new_rows

__all__ = ["given_rows", "read_lines"]

Row = dict[str, Any]


def given_rows(typed: Sequence[Row], source: str | None, trained: TrainedRun) -> list[Row]:
    """The rows, each with what the task reads.

    typed: rows of one column, each given by the option of its name.

    Raises:
        DataError: for a file that cannot be read, no rows, or rows of the wrong columns.
    """
    if typed:
        table = Table(f"--{next(iter(typed[0]))}", list(typed))
    elif source is None or source == "-":
        table = read_lines(sys.stdin.buffer.read())
    else:
        if not Path(source).is_file():
            raise DataError(f"there is no file {source}; check --input")
        table = read_table(Path(source))
    if not table.rows:
        raise DataError(f"{table.origin}: no rows; give at least one")
    return new_rows(trained, table)


def read_lines(content: bytes) -> Table:
    """JSON objects where the first line is one, else each line is a text."""
    try:
        # JSON and texts may hold other separators of Unicode, at which splitlines would cut.
        lines = content.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"stdin: not UTF-8 text (byte {error.start})") from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    numbers = [number for number, _ in numbered]
    if not numbered or _object(numbered[0][1]) is None:
        return Table("stdin", [{"text": line} for _, line in numbered], numbers)
    rows: list[Row] = []
    for number, line in numbered:
        row = _object(line)
        if row is None:
            raise DataError(
                f"stdin:{number}: the first line is a JSON object, so every line must be one; "
                f"this is not: {line[:60]}"
            )
        rows.append(row)
    return Table("stdin", rows, numbers)


def _object(line: str) -> Row | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
