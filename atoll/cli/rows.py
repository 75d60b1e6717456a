"""Rows to predict for: a file, lines of stdin, or texts on the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from atoll.data.checks import problem
from atoll.data.images import placed_image
from atoll.data.tables import Table, read_table
from atoll.errors import DataError
from atoll.tasks import task_of
from atoll.trained.load_run import TrainedRun

__all__ = ["given_rows", "read_lines"]

Row = dict[str, Any]


def given_rows(typed: Sequence[Row], source: str | None, trained: TrainedRun) -> list[Row]:
    """The rows, each with what the task reads.

    typed: rows of one column, each given by the option of its name.

    Raises:
        DataError: for a file that cannot be read, no rows, or rows of the wrong columns.
    """
    experiment = trained.setup.experiment
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
    # A run's own kind of row comes first where a row has several.
    own, asks = trained.kind.split("/")[0], task_of(experiment).asks
    needs = sorted(asks, key=lambda name: name != own)
    rows = [_renamed(row, experiment.data.columns) for row in table.rows]
    for index, row in enumerate(rows):
        _check(row, needs, table.where(index))
    if trained.setup.base.processor is None:
        return rows
    return [_with_image(row, table, index) for index, row in enumerate(rows)]


def _with_image(row: Row, table: Table, index: int) -> Row:
    """The row with its image where it is kept; a relative path is meant from the rows' file."""
    try:
        return placed_image(row, table.folder)
    except DataError as error:
        raise DataError(f"{table.where(index)}: {error}") from error


def read_lines(content: bytes) -> Table:
    """JSON objects where the first line is one, else each line is a text."""
    try:
        lines = content.decode("utf-8-sig").splitlines()
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


def _renamed(row: Row, columns: Mapping[str, str]) -> Row:
    """The columns that the run was trained with, under the names that tasks know.

    A column that is mapped to a name takes the place of one that had it.
    """
    theirs = {column: ours for ours, column in columns.items() if column in row}
    taken = set(theirs.values()) - theirs.keys()
    return {theirs.get(name, name): value for name, value in row.items() if name not in taken}


def _check(row: Row, needs: Sequence[str], where: str) -> None:
    name = next((name for name in needs if row.get(name) is not None), None)
    if name is None:
        wanted = " or ".join(f"`{name}`" for name in needs)
        raise DataError(f"{where}: the row has no {wanted}; it has {', '.join(row) or 'nothing'}")
    for column in (name, "input"):
        fault = problem(column, row)
        if fault is not None:
            raise DataError(f"{where}: {fault}")
