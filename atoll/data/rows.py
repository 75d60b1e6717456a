"""What a row means: the kinds of rows, renamed columns, and values checked where they stand."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

from atoll.data.checks import problem
from atoll.data.images import placed_image
from atoll.data.labels import named
from atoll.data.tables import Row, Table
from atoll.errors import DataError

__all__ = ["Row", "RowKind", "canonical", "is_labelled", "nearest", "row_kind"]

# In order: the first kind whose columns are all there is the kind of the row.
RowKind = Literal[
    "messages",
    "prompt/chosen/rejected",
    "prompt/completion",
    "instruction/output",
    "tokens/tags",
    "anchor/positive/negative",
    "anchor/positive",
    "image/label",
    "image/text",
    "text/label",
    "text",
]
_KINDS: dict[RowKind, tuple[str, ...]] = {
    kind: tuple(kind.split("/")) for kind in get_args(RowKind)
}
_DECIMAL = re.compile(r"-?\d*\.\d+([eE][-+]?\d+)?")


def row_kind(rows: Iterable[Row]) -> RowKind:
    """The one kind that all rows are of; a DataError where they differ or are of none."""
    table = Table("rows", [dict(row) for row in rows])
    if not table.rows:
        raise DataError("No rows: the kind of row cannot be told from nothing.")
    return canonical(table, columns={})[1]


def canonical(
    table: Table, *, columns: Mapping[str, str], expected: RowKind | None = None
) -> tuple[list[Row], RowKind]:
    """Rows under the names that tasks know, all of one kind (`expected`, when it is given)."""
    rows: list[Row] = []
    for index, raw in enumerate(table.rows):
        row = _typed(_aliases(_rename(raw, columns, table, index)), table)
        kind = _kind_of(row)
        if kind is None:
            raise DataError(f"{table.where(index)}: {_no_kind(row)}")
        if expected is not None and kind != expected:
            raise DataError(f"{table.where(index)}: {_other_kind(row, expected)}")
        expected = kind
        # Columns that the kind does not read may hold anything.
        for column in (*_KINDS[kind], "input"):
            fault = problem(column, row)
            if fault is not None:
                raise DataError(f"{table.where(index)}: {fault}")
        rows.append(_held(row, kind, table, index))
    if expected is None:
        raise DataError(f"{table.origin}: no rows; the file is empty.")
    return rows, expected


def is_labelled(kind: RowKind) -> bool:
    """Whether rows of this kind have labels that the federation must agree on."""
    return "label" in _KINDS[kind] or "tags" in _KINDS[kind]


def nearest(name: str, names: Iterable[str]) -> str:
    """' (did you mean X?)', or nothing when no name is near."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean `{close[0]}`?)" if close else ""


def _rename(row: Row, columns: Mapping[str, str], table: Table, index: int) -> Row:
    for theirs in columns.values():
        if theirs not in row:
            raise DataError(
                f"{table.where(index)}: there is no column `{theirs}` here"
                f"{nearest(theirs, row)}; the columns are {_names(row)}. "
                "`columns` maps the name that is needed to the name in the file."
            )
    gone = {*columns, *columns.values()}
    kept = {name: value for name, value in row.items() if name not in gone}
    return {**kept, **{ours: row[theirs] for ours, theirs in columns.items()}}


def _aliases(row: Row) -> Row:
    if "prompt" in row and "response" in row and "completion" not in row:
        row["completion"] = row.pop("response")
    if "instruction" in row and "output" in row and row.get("input") is None:
        row["input"] = ""
    return row


def _typed(row: Row, table: Table) -> Row:
    # In a CSV file everything is text; a label with a decimal point is a number to predict.
    label = row.get("label")
    if not table.typed and isinstance(label, str) and _DECIMAL.fullmatch(label):
        row["label"] = float(label)
    return row


def _kind_of(row: Row) -> RowKind | None:
    # A null is a missing value: CSV and Parquet have no other way to leave a cell out.
    present = {name for name, value in row.items() if value is not None}
    return next((kind for kind, needed in _KINDS.items() if present.issuperset(needed)), None)


def _no_kind(row: Row) -> str:
    known = "; ".join(kind.replace("/", " and ") for kind in _KINDS)
    needed = sorted({name for names in _KINDS.values() for name in names})
    empty = [name for name in needed if name in row and row[name] is None]
    if empty:
        # The column is there under its right name: no other name was meant.
        return (
            f"{' and '.join(f'`{name}`' for name in empty)} is empty here; fill it in or remove "
            "the row."
        )
    other = [name for name in row if name not in needed]
    near = next((hint for name in other if (hint := nearest(name, needed))), "")
    return (
        f"the columns {_names(row)} make no known kind of row{near}. Rows hold one of: {known}. "
        "Rename columns with `columns`, as in {text: body, label: intent}."
    )


def _other_kind(row: Row, expected: RowKind) -> str:
    missing = [name for name in _KINDS[expected] if row.get(name) is None]
    if missing:
        return (
            f"the row has no {' and no '.join(f'`{name}`' for name in missing)}; the other rows "
            f"are {expected} rows. Fill it in or remove the row."
        )
    return (
        f"this is a row of {_kind_of(row)} ({_names(row)}), the others are {expected} rows; "
        "give all rows the same columns."
    )


def _held(row: Row, kind: RowKind, table: Table, index: int) -> Row:
    """The row as tasks read it: labels as names, an image that is there and whole."""
    row = named(row) if is_labelled(kind) else row
    if "image" not in _KINDS[kind]:
        return row
    try:
        return placed_image(row, table.folder)
    except DataError as error:
        raise DataError(f"{table.where(index)}: {error}") from error


def _names(row: Row | Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in row) or "(none)"
