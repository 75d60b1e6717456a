"""Labels: one name for one label everywhere, and a map shared without sharing a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from atoll.data.tables import Row
from atoll.errors import DataError

__all__ = [
    "LabelSet",
    "check_known",
    "check_numbers",
    "class_of",
    "is_number",
    "label_map",
    "labels_of",
    "named",
    "numbers",
]


@dataclass(frozen=True)
class LabelSet:
    """All that a client tells about its labels: their names, and whether some are decimals."""

    names: frozenset[str] = frozenset()
    decimal: bool = False

    def union(self, other: LabelSet) -> LabelSet:
        """The label set of two clients."""
        return LabelSet(self.names | other.names, self.decimal or other.decimal)

    def without(self, other: LabelSet) -> LabelSet:
        """The names that the other does not have."""
        return LabelSet(self.names - other.names, self.decimal)


def named(row: Row) -> Row:
    """The row with its labels as names: 3 is "3", true is "true"; decimals stay numbers."""
    column = _column(row)
    return row if column is None else {**row, column: _name(row[column])}


def labels_of(rows: Iterable[Row]) -> LabelSet:
    """The label set of rows that went through `named`."""
    found: set[str] = set()
    decimal = False
    for row in rows:
        column = _column(row)
        values = [] if column is None else _flat(row[column])
        decimal = decimal or any(isinstance(value, float) for value in values)
        found.update(str(value) for value in values)
    return LabelSet(frozenset(found), decimal)


def class_of(row: Row) -> str | None:
    """The single label of a row, when it has exactly one."""
    label = row.get("label")
    return label if isinstance(label, str) else None


def label_map(labels: LabelSet) -> tuple[str, ...] | None:
    """Sorted names, whole numbers by value; None without labels and for decimals (regression)."""
    if not labels.names:
        return None
    if labels.decimal:
        words = sorted(name for name in labels.names if not is_number(name))
        if words:
            raise DataError(
                f"Labels mix decimal numbers with names ({_list(words)}); "
                "use names for classes, or numbers only for regression."
            )
        return None
    if all(name.removeprefix("-").isdecimal() for name in labels.names):
        return tuple(sorted(labels.names, key=lambda name: (int(name), name)))
    return tuple(sorted(labels.names))


def numbers(rows: Sequence[Row]) -> list[Row]:
    """Rows of a regression: every label a number."""
    return [{**row, "label": _as_number(row["label"])} for row in rows]


def is_number(name: str) -> bool:
    """Whether a label reads as a number."""
    try:
        float(name)
    except ValueError:
        return False
    return True


def check_known(known: Iterable[str], found: LabelSet, *, where: str, given: bool) -> None:
    """Refuse labels that stand in rows but not in the label map."""
    unknown = sorted(found.names.difference(known))
    if not unknown:
        return
    noun, verb = ("label", "is") if len(unknown) == 1 else ("labels", "are")
    if given:
        raise DataError(
            f"{where}: {noun} {_list(unknown)} {verb} not among the labels that were given; "
            "add to `labels`, or correct the rows."
        )
    raise DataError(
        f"{where}: {noun} {_list(unknown)} {verb} in test rows, but in no client's training "
        "rows. Add training rows, correct a misspelt label, or remove these test rows."
    )


def check_numbers(found: LabelSet, *, where: str) -> None:
    """Refuse names where the training labels are numbers to predict."""
    words = sorted(name for name in found.names if not is_number(name))
    if words:
        raise DataError(
            f"{where}: {_list(words)} among labels that are numbers in training; correct the rows."
        )


def _column(row: Row) -> str | None:
    if row.get("label") is not None:
        return "label"
    return "tags" if row.get("tags") is not None and "tokens" in row else None


def _flat(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _name(value: Any) -> Any:
    if isinstance(value, list):
        return [_name(item) for item in value]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return value


def _as_number(label: Any) -> Any:
    return [_as_number(item) for item in label] if isinstance(label, list) else float(label)


def _list(names: Sequence[str], limit: int = 8) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
