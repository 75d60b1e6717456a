"""The card of rows against counting by hand, copies where they were put, every fault told."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.config.tasks import TASKS
from atoll.data import FederatedData, RowKind, load
from atoll.data.duplicates import duplicates
from atoll.data.faults import faults
from atoll.data.remarks import remarks
from atoll.data.report import characters, report, tasks_of
from atoll.errors import DataError

Row = dict[str, Any]


def _write(path: Path, rows: Sequence[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _rows(texts: str, label: str = "a") -> list[Row]:
    return [{"text": text, "label": label} for text in texts.split()]


def _federation(folder: Path, clients: Mapping[str, Mapping[str, Sequence[Row]]]) -> FederatedData:
    for client, splits in clients.items():
        for split, rows in splits.items():
            place = folder / client if client else folder
            _write(place / f"{split}.jsonl", rows)
    return load(folder, holdout=0.0)


def test_counts_labels_and_lengths_are_those_of_the_rows(tmp_path: Path) -> None:
    data = _federation(
        tmp_path,
        {
            "ada": {"train": [*_rows("one three five", "a"), *_rows("seven", "b")],
                    "test": _rows("tests")},
            "bob": {"train": [*_rows("eleven abc", "b"), {"text": "  ", "label": "c"}]},
            "cy": {"train": []},
            "": {"test": _rows("common rows")},
        },
    )  # fmt: skip
    card = report(data)
    assert (card["kind"], card["num_clients"]) == ("text/label", 2)
    assert (card["train"], card["own_test"], card["test"], card["val"]) == (7, 1, 2, None)
    assert card["skipped"] == {"cy": "train.jsonl has no rows"}
    assert card["clients"]["ada"] == {"train": 4, "test": 1, "labels": 2, "characters": 4.5}
    lengths = sorted([3, 5, 4, 5, 6, 3, 0])
    found = card["characters"]
    assert (found["least"], found["median"], found["most"]) == (0, lengths[3], 6)
    assert found["mean"] == pytest.approx(sum(lengths) / 7)
    assert (card["empty"], card["short"]) == (1, 2)
    labels = card["labels"]
    assert labels["rows"] == {"a": 3, "b": 3, "c": 1}
    assert labels["largest_share"] == pytest.approx(3 / 7)
    assert labels["imbalance"] == 3
    # Half of the sum of differences to (3/7, 3/7, 1/7), for (3/4, 1/4, 0) and for (0, 2/3, 1/3).
    ada = (3 / 4 - 3 / 7 + 3 / 7 - 1 / 4 + 1 / 7) / 2
    bob = (3 / 7 + 2 / 3 - 3 / 7 + 1 / 3 - 1 / 7) / 2
    assert labels["skew"] == pytest.approx((ada + bob) / 2)
    assert card["fingerprint"] == data.fingerprint


def test_copies_are_found_where_they_stand(tmp_path: Path) -> None:
    data = _federation(
        tmp_path,
        {
            "ada": {"train": [*_rows("own own shared"), *_rows("twisted", "a")],
                    "test": _rows("own fresh")},
            "bob": {"train": [*_rows("shared"), *_rows("twisted", "b")],
                    "test": [*_rows("shared", "b"), *_rows("own")]},
            "": {"test": _rows("shared new")},
        },
    )  # fmt: skip
    found = duplicates(data)
    assert found.within == 1
    assert found.across == 2
    assert found.other_label == 1
    # "own" of ada, "shared" of bob; "own" of bob is ada's alone.
    assert found.own_test == 2
    assert found.others_test == 1
    assert found.test == 1
    told = "\n".join(remarks(report(data)))
    assert "2 of 4 clients' test rows stand in their own training rows" in told
    assert "1 of 2 rows of the common test set stand in training rows" in told


@given(st.lists(st.lists(st.sampled_from("abcdef"), min_size=1), min_size=1, max_size=4))
def test_copies_are_counted_as_sets_are(clients: list[list[str]]) -> None:
    from atoll.data.federation import Common, federate
    from atoll.data.scan import Share

    shares = {
        f"c{number}": Share([{"text": text} for text in own], [], False, "text")
        for number, own in enumerate(clients)
    }
    found = duplicates(federate(shares, shares.__getitem__, common=Common()))
    assert found.within == sum(len(own) - len(set(own)) for own in clients)
    seen: set[str] = set()
    across = 0
    for own in clients:
        across += sum(text in seen for text in set(own))
        seen |= set(own)
    assert found.across == across


def test_texts_of_every_kind_have_a_length() -> None:
    chat = [{"role": "user", "content": "four"}, {"role": "assistant", "content": "sixsix"}]
    assert characters({"messages": chat}, "messages") == 10
    assert characters({"prompt": "ab", "completion": " c "}, "prompt/completion") == 3
    assert characters({"prompt": chat, "completion": chat}, "prompt/completion") == 20
    row = {"instruction": "ab", "input": "c", "output": "d"}
    assert characters(row, "instruction/output") == 4
    assert characters({"tokens": ["ab", "c"], "tags": ["X", "Y"]}, "tokens/tags") == 3
    assert characters({"image": b"12345", "label": "a"}, "image/label") is None


def test_each_task_has_rows_that_train_it_and_each_kind_of_rows_a_task(tmp_path: Path) -> None:
    examples: dict[RowKind, Row] = {
        "messages": {"messages": [{"role": "user", "content": "a"}]},
        "prompt/chosen/rejected": {"prompt": "a", "chosen": "b", "rejected": "c"},
        "prompt/completion": {"prompt": "a", "completion": "b"},
        "instruction/output": {"instruction": "a", "output": "b"},
        "tokens/tags": {"tokens": ["a"], "tags": ["X"]},
        "anchor/positive/negative": {"anchor": "a", "positive": "b", "negative": "c"},
        "anchor/positive": {"anchor": "a", "positive": "b"},
        "text/label": {"text": "a", "label": "x"},
        "text": {"text": "a"},
    }
    several = {"text": "a", "label": ["x", "y"]}
    number = {"text": "a", "label": 0.5}
    trained: set[str] = set()
    for place, row in enumerate([*examples.values(), several, number]):
        data = _federation(tmp_path / str(place), {"ada": {"train": [row, row]}})
        assert tasks_of(data)
        trained |= set(tasks_of(data))
    assert tasks_of(_federation(tmp_path / "n", {"ada": {"train": [number]}}))[0] == "regression"
    assert set(TASKS) - trained <= {"image-classification"}
    images = {kind for kind in get_args(RowKind) if "image" in kind}
    assert set(get_args(RowKind)) == examples.keys() | images


def test_every_broken_line_of_every_file_is_told_once(tmp_path: Path) -> None:
    good = '{"text": "a", "label": "x"}'
    lines = [good, '{"text": 5, "label": "x"}', "no json", '{"text": "a"}', good, "[]", "no json"]
    (tmp_path / "ada").mkdir()
    (tmp_path / "ada" / "train.jsonl").write_text("\n".join(lines))
    (tmp_path / "bob").mkdir()
    (tmp_path / "bob" / "train.csv").write_text("text,label\na,x\n,y\n")
    with gzip.open(tmp_path / "test.jsonl.gz", "wt") as stream:
        stream.write(f"{good}\nhalf")
    found = faults(tmp_path, columns={})
    ada = tmp_path / "ada" / "train.jsonl"
    places = [place for one in found for place in one.places]
    assert sorted(places) == sorted(
        [*(f"{ada}:{number}" for number in (2, 3, 4, 6, 7)),
         f"{tmp_path / 'bob' / 'train.csv'}, row 2", f"{tmp_path / 'test.jsonl.gz'}:2"]
    )  # fmt: skip
    same = next(one for one in found if len(one.places) > 1)
    assert same.told().startswith(f"{ada}:3 (also 7): broken JSON")
    with pytest.raises(DataError) as error:
        load(tmp_path)
    assert any(one.says(error.value) for one in found)


def test_what_reads_well_has_no_faults(tmp_path: Path) -> None:
    _federation(tmp_path, {"ada": {"train": _rows("a b")}, "": {"test": _rows("c")}})
    assert faults(tmp_path, columns={}) == []
    assert faults("builtin:docstrings", columns={}) == []
    assert faults(tmp_path / "gone", columns={}) == []
    told = faults(tmp_path, columns={"text": "body"})
    assert {len(one.places) for one in told} == {1, 2}
    assert all("there is no column `body`" in one.sentence for one in told)


def test_a_cut_archive_is_one_fault(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "a"}\n' * 1000)[:-10])
    (found,) = faults(tmp_path, columns={})
    assert found.places == ()
    assert str(path) in found.told()
    with pytest.raises(DataError) as error:
        load(tmp_path, partition=lambda rows, seed: {"all": list(range(len(rows)))})
    assert found.says(error.value)
