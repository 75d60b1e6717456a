"""New rows for a trained model: under the names that its task reads, and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atoll.data.checks import problem
from atoll.data.images import placed_image
from atoll.data.tables import Table
from atoll.errors import DataError
from atoll.tasks import task_of
from atoll.trained.load_run import TrainedRun

__all__ = ["new_rows"]

Row = dict[str, Any]


def new_rows(run: TrainedRun, table: Table) -> list[Row]:
    """The rows of a table, each with what the task reads.

    Raises:
        DataError: for rows of the wrong columns, or values of the wrong kind.
    """
    experiment = run.setup.experiment
    # A run's own kind of row comes first where a row has several.
    own, asks = run.kind.split("/")[0], task_of(experiment).asks
    needs = sorted(asks, key=lambda name: name != own)
    rows = [_renamed(row, experiment.data.columns) for row in table.rows]
    for index, row in enumerate(rows):
        _check(row, needs, table.where(index))
    if run.setup.base.processor is None:
        return rows
    return [_with_image(row, table, index) for index, row in enumerate(rows)]


def _with_image(row: Row, table: Table, index: int) -> Row:
    """The row with its image where it is kept; a relative path is meant from the rows' file."""
    try:
        return placed_image(row, table.folder)
    except DataError as error:
        raise DataError(f"{table.where(index)}: {error}") from error


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
