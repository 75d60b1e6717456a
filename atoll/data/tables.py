"""Files of rows: JSON lines (also gzipped), CSV and Parquet, each row with the place it stands."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from atoll.errors import DataError

__all__ = ["SUFFIXES", "Row", "Table", "read_table", "suffix_of"]

Row = dict[str, Any]
SUFFIXES = (".csv", ".jsonl", ".jsonl.gz", ".parquet")
BLOCK = 1 << 26
SHOWN = 60  # characters of an offending line that a message repeats


@dataclass(frozen=True)
class Table:
    """Rows as they stand in one file; `lines` is empty where only row numbers are known.

    Relative image paths are meant from `folder`; a table that is not `typed` knows only text.
    classes: by column, the names that may stand in it, where the data set itself says so.
    """

    origin: str
    rows: list[Row]
    lines: Sequence[int] = ()
    folder: Path | None = None
    typed: bool = True
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def places(self) -> Table:
        """The same file without its rows, to say later where one of them stands."""
        return replace(self, rows=[])

    def where(self, index: int) -> str:
        """The place of a row, as people look it up."""
        if self.lines:
            return f"{self.origin}:{self.lines[index]}"
        return f"{self.origin}, row {index + 1}"


def suffix_of(path: Path) -> str | None:
    """The data format of a file by its name, or None."""
    matches = [suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)]
    return matches[0] if matches else None


def read_table(path: Path) -> Table:
    """Every row of one file; no rows when it is empty."""
    suffix = suffix_of(path)
    if suffix is None:
        known = ", ".join(SUFFIXES)
        raise DataError(f"{path}: not a data file that can be read; convert it to one of {known}.")
    try:
        if path.stat().st_size == 0:
            return Table(str(path), [])
        if suffix in (".jsonl", ".jsonl.gz"):
            return _read_jsonl(path, compressed=suffix == ".jsonl.gz")
        return _read_csv(path) if suffix == ".csv" else _read_parquet(path)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); check the file.") from error


def _read_jsonl(path: Path, *, compressed: bool) -> Table:
    rows: list[Row] = []
    lines: list[int] = []
    with gzip.open(path, "rb") if compressed else path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            text = _decode(
                line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, path, number
            )
            if text.strip():
                rows.append(_parse(text, f"{path}:{number}"))
                lines.append(number)
    return Table(str(path), rows, lines, path.parent)


def _decode(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        shown = _cut(line.decode("utf-8", errors="replace"))
        raise DataError(
            f"{path}:{number}: not UTF-8 at byte {error.start} of the line ({shown}); "
            "save the file as UTF-8."
        ) from error


def _parse(text: str, where: str) -> Row:
    try:
        row = json.loads(text, parse_constant=_refuse_constant)
        if "\\u" in text:  # a lone surrogate would stop the tokenizer in the middle of a run
            json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: holds half of a character (a lone \\u surrogate): {_cut(text)}; remove it."
        ) from error
    except RecursionError as error:
        raise DataError(f"{where}: nested too deeply: {_cut(text)}; flatten the row.") from error
    except ValueError as error:
        raise DataError(
            f"{where}: broken JSON ({error}): {_cut(text)}; every line must be one JSON object."
        ) from error
    if not isinstance(row, dict):
        raise DataError(
            f'{where}: not a JSON object: {_cut(text)}; write a row as {{"text": "..."}}.'
        )
    return row


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _cut(text: str) -> str:
    text = text.strip()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _read_csv(path: Path) -> Table:
    # Cells stay strings: a column of digits at one client and of names at another must read alike.
    import pyarrow as pa
    from pyarrow import csv

    _check_commas(path)
    parse = csv.ParseOptions(newlines_in_values=True)
    # One cell may be a whole document, and a row must fit into a block.
    read = csv.ReadOptions(block_size=BLOCK)
    try:
        with csv.open_csv(path, read_options=read, parse_options=parse) as reader:
            names = reader.schema.names
        _check_once(names, path)
        strings = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
        table = csv.read_csv(path, read, parse, strings)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: not a CSV file in UTF-8 ({_first_line(error)}); save it as UTF-8, and quote "
            "cells that hold commas."
        ) from error
    # An empty cell is a missing value, as in Parquet and JSON.
    filled = [{key: cell or None for key, cell in row.items()} for row in table.to_pylist()]
    return Table(str(path), filled, folder=path.parent, typed=False)


def _read_parquet(path: Path) -> Table:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path).read()
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a Parquet file ({_first_line(error)}).") from error
    _check_once(table.column_names, path)
    return Table(str(path), table.to_pylist(), folder=path.parent)


def _check_commas(path: Path) -> None:
    with path.open("rb") as stream:
        head = stream.readline()
    mark = next((mark for mark in (b";", b"\t") if mark in head), None)
    if mark is not None and b"," not in head:
        shown = "tabs" if mark == b"\t" else "semicolons"
        raise DataError(f"{path}: its columns stand between {shown}; save it with commas there.")


def _check_once(names: Sequence[str], path: Path) -> None:
    for place, name in enumerate(names):
        if name in names[:place]:
            raise DataError(f"{path}: the column `{name}` stands there twice; keep one.")


def _first_line(error: Exception) -> str:
    return _cut(str(error).splitlines()[0]) if str(error) else type(error).__name__
