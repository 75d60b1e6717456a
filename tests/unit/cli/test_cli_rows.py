"""Lines of stdin as rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from atoll.api import predict
from atoll.cli.rows import given_rows, read_lines
from atoll.errors import DataError
from atoll.trained.load_run import TrainedRun
from tests.support.scenes import scene

if TYPE_CHECKING:
    from tests.support.models import Zoo


def test_plain_lines_are_texts_and_empty_ones_are_left_out() -> None:
    table = read_lines("\ufeffone\n\n  \ntwo {\n".encode())
    assert table.rows == [{"text": "one"}, {"text": "two {"}]
    assert [table.where(index) for index in range(2)] == ["stdin:1", "stdin:4"]


def test_json_objects_are_rows() -> None:
    assert read_lines(b'{"text": "a", "id": 1}\n{"prompt": "b"}').rows == [
        {"text": "a", "id": 1},
        {"prompt": "b"},
    ]


def test_separators_inside_a_text_end_no_line() -> None:
    text = "a\u2028b\x0bc\x85d"
    lines = f"{text}\r\nlast".encode()
    assert read_lines(lines).rows == [{"text": text}, {"text": "last"}]
    row = json.dumps({"text": "a\u2028b"}, ensure_ascii=False).encode()
    assert read_lines(row + b"\r\n" + row).rows == [{"text": "a\u2028b"}] * 2


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


def _given(trained: TrainedRun, folder: Path, row: dict[str, Any]) -> dict[str, Any]:
    (folder / "new.jsonl").write_text(json.dumps(row) + "\n")
    (found,) = given_rows([], str(folder / "new.jsonl"), trained)
    return found


def test_a_mapped_column_wins_over_one_that_has_its_name(tmp_path: Path, zoo: Zoo) -> None:
    data = tmp_path / "data" / "ada"
    data.mkdir(parents=True)
    rows = [{"body": "reef", "text": 7, "label": label} for label in ("sea", "sky")]
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    setup = scene(tmp_path, zoo, data={"columns": {"text": "body"}})
    trained = TrainedRun(tmp_path, setup, {}, "text/label")
    assert _given(trained, tmp_path, {"text": "a", "body": "b"}) == {"text": "b"}
    assert _given(trained, tmp_path, {"body": "b", "text": "a"}) == {"text": "b"}
    assert _given(trained, tmp_path, {"text": "a"}) == {"text": "a"}


def test_rows_may_be_typed(tmp_path: Path, zoo: Zoo) -> None:
    trained = TrainedRun(tmp_path, scene(tmp_path, zoo), {}, "text/label")
    assert given_rows([{"text": "a"}, {"text": "b"}], None, trained) == [
        {"text": "a"},
        {"text": "b"},
    ]
    with pytest.raises(DataError, match=r"^--image, row 1: the row has no `text`; it has image$"):
        given_rows([{"image": "a.png"}], None, trained)
    with pytest.raises(DataError, match=r"^rows, row 2: `text` is int 3, not text"):
        predict(trained, [{"text": "a"}, {"text": 3}])


@pytest.mark.parametrize(("row", "message"), [
    ({"messages": []}, r"new\.jsonl:1: `messages` is list \[\], not a list of messages"),
    ({"messages": [{"content": "a"}]}, "not a list of messages"),
    ({"prompt": 3}, "`prompt` is int 3; write a text or a list of messages"),
    ({"instruction": "a", "input": 3}, "`input` is int 3, not text"),
    ({"other": "a"}, "the row has no `text` or `messages` or `prompt` or `instruction`"),
])  # fmt: skip
def test_rows_that_ask_nothing(tmp_path: Path, zoo: Zoo, row: dict[str, Any], message: str) -> None:
    trained = TrainedRun(tmp_path, scene(tmp_path, zoo, "llama"), {}, "text")
    with pytest.raises(DataError, match=message):
        _given(trained, tmp_path, row)
