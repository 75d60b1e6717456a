"""Lines of stdin as rows."""

from __future__ import annotations

import pytest

from atoll.cli.rows import read_lines
from atoll.errors import DataError


def test_plain_lines_are_texts_and_empty_ones_are_left_out() -> None:
    table = read_lines("\ufeffone\n\n  \ntwo {\n".encode())
    assert table.rows == [{"text": "one"}, {"text": "two {"}]
    assert [table.where(index) for index in range(2)] == ["stdin:1", "stdin:4"]


def test_json_objects_are_rows() -> None:
    assert read_lines(b'{"text": "a", "id": 1}\n{"prompt": "b"}').rows == [
        {"text": "a", "id": 1},
        {"prompt": "b"},
    ]


@pytest.mark.parametrize("line", ["17", '"quoted"', "[1]", "{broken"])
def test_a_first_line_that_is_no_object_makes_all_lines_texts(line: str) -> None:
    assert read_lines(line.encode()).rows == [{"text": line}]


def test_a_broken_line_among_objects_is_named() -> None:
    with pytest.raises(DataError) as error:
        read_lines(b'{"text": "a"}\n\n{"text": \n')
    assert str(error.value) == (
        'stdin:3: the first line is a JSON object, so every line must be one; this is not: {"text":'
        " "
    )


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(DataError, match=r"^stdin: not UTF-8 text \(byte 2\)$"):
        read_lines(b"ab\xff")


def test_no_lines_are_no_rows() -> None:
    assert read_lines(b"\n").rows == []
