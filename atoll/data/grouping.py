"""What partitions share: rows grouped by a column, names for clients, checks of arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from atoll.data.holdout import generator
from atoll.data.rows import nearest
from atoll.data.tables import Row
from atoll.errors import DataError

__all__ = ["at_least_one", "enough", "groups_of", "roster", "values_of"]


def roster(parts: Sequence[list[int]]) -> dict[str, list[int]]:
    """Parts under the names client-00, client-01, ..."""
    width = max(2, len(str(len(parts) - 1)))
    return {f"client-{number:0{width}}": sorted(part) for number, part in enumerate(parts)}


def groups_of(rows: Sequence[Row], by: str, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """The shuffled row numbers of each value of a column, sorted by value."""
    values = np.array(values_of(rows, by))
    order = generator(seed, "partition").permutation(len(rows))
    return {str(name): order[values[order] == name] for name in np.unique(values)}


def values_of(rows: Sequence[Row], by: str) -> list[str]:
    """One column as names; every row must have it."""
    for index, row in enumerate(rows):
        value = row.get(by)
        if value is None or value == "":
            raise DataError(
                f"Row {index + 1} has no `{by}` to partition by{nearest(by, row)}; its columns "
                f"are {', '.join(row)}. Name the column with `by`, or fill it in."
            )
        if not isinstance(value, str | int):
            raise DataError(
                f"`{by}` of row {index + 1} is a {type(value).__name__}; rows are divided by "
                "names or whole numbers. Name such a column with `by`, or use iid."
            )
    return [str(row[by]) for row in rows]


def at_least_one(value: int, name: str) -> None:
    """Refuse a count below 1."""
    if value < 1:
        raise DataError(f"{name} is {value}; give at least 1.")


def enough(rows: Sequence[Row], count: int, *, what: str) -> None:
    """Refuse more parts than rows."""
    if count > len(rows):
        raise DataError(f"{count} {what} are more than the {len(rows)} rows; take fewer {what}.")
