from __future__ import annotations

from pathlib import Path

import pytest

from atoll.data import Row, row_kind
from atoll.data.rows import canonical
from atoll.data.tables import Table
from atoll.errors import DataError
from tests.support.images import file_bytes, painted, save_picture

PICTURE = file_bytes(painted("red", 0))
MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"messages": MESSAGES}, "messages"),
        ({"prompt": "a", "completion": "b"}, "prompt/completion"),
        ({"prompt": "a", "response": "b"}, "prompt/completion"),
        ({"prompt": MESSAGES, "completion": MESSAGES}, "prompt/completion"),
        ({"instruction": "a", "input": "b", "output": "c"}, "instruction/output"),
        ({"instruction": "a", "output": "c"}, "instruction/output"),
        ({"text": "a"}, "text"),
        ({"text": "a", "label": None}, "text"),
        ({"text": "a", "label": 1}, "text/label"),
        ({"text": "a", "label": ["x", "y"]}, "text/label"),
        ({"text": "a", "year": 1999, "client": "b"}, "text"),
        ({"tokens": ["a", "b"], "tags": ["O", "B"]}, "tokens/tags"),
        ({"anchor": "a", "positive": "b"}, "anchor/positive"),
        ({"anchor": "a", "positive": "b", "negative": "c"}, "anchor/positive/negative"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "prompt/chosen/rejected"),
        ({"image": PICTURE, "label": "cat"}, "image/label"),
        ({"image": PICTURE, "text": "a cat"}, "image/text"),
    ],
)
def test_kinds(row: Row, kind: str) -> None:
    before = dict(row)
    assert row_kind([row, row]) == kind
    assert row == before


def test_response_becomes_completion_and_alpaca_gets_its_input() -> None:
    table = Table("a", [{"prompt": "p", "response": "r", "client": 3}])
    assert canonical(table, columns={})[0] == [{"prompt": "p", "completion": "r", "client": 3}]
    table = Table("a", [{"instruction": "i", "output": "o"}])
    assert canonical(table, columns={})[0] == [{"instruction": "i", "output": "o", "input": ""}]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"txt": "a"}, r"did you mean `text`\?"),
        ({}, "none"),
        ({"text": 5}, "`text` is int 5, not text"),
        ({"text": "a", "label": {"x": 1}}, "`label` is dict"),
        ({"text": "a", "label": float("nan")}, "`label` is float nan"),
        ({"text": "a", "label": " "}, "`label` is empty here; name the label or remove the row"),
        ({"text": "a", "label": ["x", ""]}, "`label` is empty here"),
        ({"messages": []}, "not a list of messages"),
        ({"messages": [{"content": "no role"}]}, "not a list of messages"),
        ({"prompt": 1, "completion": "a"}, "`prompt` is int 1"),
        ({"tokens": ["a", "b"], "tags": ["O"]}, "2 tokens but 1 tags"),
        ({"tokens": "a b", "tags": ["O"]}, "`tokens` is not a list of words"),
        ({"tokens": ["a"], "tags": [0.5]}, "neither a name nor a whole number"),
        ({"image": 3, "label": "a"}, "`image` is int 3"),
    ],
)
def test_a_bad_row_is_named(row: Row, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        canonical(Table("a.jsonl", [row], [7]), columns={})
    assert str(caught.value).startswith("a.jsonl:7: ")


def test_rows_of_two_kinds_are_refused_at_the_first_that_differs() -> None:
    rows: list[Row] = [{"text": "a", "label": "x"}, {"text": "b", "label": None}]
    with pytest.raises(DataError, match=r"^a.jsonl:4: the row has no `label`; the other rows"):
        canonical(Table("a.jsonl", rows, [2, 4]), columns={})
    with pytest.raises(DataError, match="this is a row of text/label"):
        row_kind(reversed(rows))


@pytest.mark.parametrize(
    "row", [{"text": None, "label": "x"}, {"text": None, "label": None}, {"text": None}]
)
def test_an_empty_cell_is_called_empty(row: Row) -> None:
    with pytest.raises(DataError, match=r"^a.jsonl:1: .*`text` is empty here; fill it in"):
        canonical(Table("a.jsonl", [row], [1]), columns={})


def test_no_rows_have_no_kind() -> None:
    with pytest.raises(DataError, match="No rows"):
        row_kind([])


def test_columns_are_renamed_and_may_be_swapped() -> None:
    table = Table("a", [{"body": "b", "intent": 3, "text": "old", "id": 1}])
    rows, kind = canonical(table, columns={"text": "body", "label": "intent"})
    assert (rows, kind) == ([{"id": 1, "text": "b", "label": "3"}], "text/label")
    table = Table("a", [{"text": "name", "label": "the text"}])
    rows, _ = canonical(table, columns={"text": "label", "label": "text"})
    assert rows == [{"text": "the text", "label": "name"}]


def test_an_unknown_column_gives_the_nearest_one() -> None:
    with pytest.raises(DataError, match=r"no column `bodi` here \(did you mean `body`\?\)"):
        canonical(Table("a", [{"body": "b"}]), columns={"text": "bodi"})


def test_a_label_with_a_decimal_point_is_a_number_only_where_all_is_text() -> None:
    rows: list[Row] = [{"text": "a", "label": "4.5"}]
    assert canonical(Table("a", rows, typed=False), columns={})[0][0]["label"] == 4.5
    assert canonical(Table("a", rows), columns={})[0][0]["label"] == "4.5"


def test_image_paths_are_meant_from_their_file(tmp_path: Path) -> None:
    save_picture(tmp_path / "cat.png", "red", 0)
    table = Table("a", [{"image": "cat.png", "label": "cat"}], folder=tmp_path)
    assert canonical(table, columns={})[0][0]["image"] == str(tmp_path / "cat.png")
    table = Table("a", [{"image": "dog.png", "label": "dog"}], folder=tmp_path)
    with pytest.raises(DataError, match=r"dog.png: this image .* is not there"):
        canonical(table, columns={})
