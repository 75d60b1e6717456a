from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import csv, parquet

from atoll.data.tables import read_table
from atoll.errors import DataError

ROWS = [
    {"text": "ein Wörtchen", "label": "a"},
    {"text": 'with "quotes",\nand a line', "label": "b"},
]
JSONL = """{"text": "ein Wörtchen", "label": "a"}

{"text": "with \\"quotes\\",\\nand a line", "label": "b"}"""


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    csv.write_csv(table, tmp_path / "a.csv")
    parquet.write_table(table, tmp_path / "a.parquet")
    write(tmp_path / "a.jsonl", "\ufeff" + JSONL)
    write(tmp_path / "a.jsonl.gz", gzip.compress(JSONL.encode()))
    for name in ("a.csv", "a.parquet", "a.jsonl", "a.jsonl.gz"):
        assert read_table(tmp_path / name).rows == ROWS, name


def test_blank_lines_do_not_shift_line_numbers(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.jsonl", JSONL))
    assert table.where(1) == f"{tmp_path / 'a.jsonl'}:3"


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.jsonl", "a.jsonl.gz"])
def test_an_empty_file_has_no_rows(tmp_path: Path, name: str) -> None:
    assert read_table(write(tmp_path / name, "")).rows == []


def test_a_csv_file_with_only_a_header_has_no_rows(tmp_path: Path) -> None:
    assert read_table(write(tmp_path / "a.csv", "text,label\n")).rows == []


def test_csv_cells_stay_text_and_empty_cells_are_missing(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.csv", "\ufefftext,label\n12,01\nhello,\n"))
    assert table.rows == [{"text": "12", "label": "01"}, {"text": "hello", "label": None}]
    assert not table.typed


def test_a_parquet_column_stands_once(tmp_path: Path) -> None:
    table = pa.table([["a"], ["b"], ["c"]], names=["text", "label", "text"])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: the column `text` stands there twice"):
        read_table(tmp_path / "a.parquet")


def test_semicolons_may_stand_in_a_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,in cm; rounded\na,1\n")
    assert read_table(path).rows == [{"text": "a", "in cm; rounded": "1"}]


def test_a_csv_cell_may_be_a_long_document(tmp_path: Path) -> None:
    long = "word " * 500_000
    assert read_table(write(tmp_path / "a.csv", f"text\n{long}\n")).rows == [{"text": long}]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"text": "b"', "broken JSON"),
        ("[1, 2]", "not a JSON object"),
        ('{"text": NaN}', "NaN is not a JSON number"),
        ('{"text": "\\ud800"}', "lone"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_line_is_named_and_cut_short(tmp_path: Path, line: str, says: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "fine"}\n' + line + "\n")
    with pytest.raises(DataError, match=says) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert len(str(caught.value)) < len(str(path)) + 250


def test_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "fine"}\n{"text": "Wörtchen"}\n'.encode("latin-1"))
    with pytest.raises(DataError, match=r"a.jsonl:2: not UTF-8 at byte 11"):
        read_table(path)
    with pytest.raises(DataError, match="not a CSV file in UTF-8"):
        read_table(write(tmp_path / "a.csv", "text\nWörtchen\n".encode("latin-1")))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.parquet", b"not parquet", "not a Parquet file"),
        ("a.csv", b"text,label\na,b\na,b,c\n", "Expected 2 columns, got 3.*quote cells that hold"),
        ("a.csv", b"text;label\nwell, a;b\n", "a.csv: its columns stand between semicolons; save"),
        ("a.csv", b"text\tlabel\r\na\tb\r\n", "a.csv: its columns stand between tabs; save it"),
        ("a.csv", b"text,label,label\na,b,c\n", "a.csv: the column `label` stands there twice"),
        ("a.jsonl.gz", b"not gzip", "cannot be read"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}' * 99, mtime=0)[:-9], "cannot be read"),
        ("a.json", b"[]", "not a data file"),
    ],
)
def test_a_broken_file_is_a_sentence(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_table(write(tmp_path / name, content))


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "a.jsonl")


@given(content=st.binary(max_size=80))
def test_any_bytes_are_rows_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any")
    for name in ("a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet"):
        try:
            table = read_table(write(folder / name, content))
        except DataError:
            continue
        assert all(isinstance(row, dict) for row in table.rows)
