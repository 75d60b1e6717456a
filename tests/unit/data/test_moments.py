"""Mean and deviation from clients' sums, and labels that are numbers whatever they look like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.data import FederatedData, load
from atoll.data.moments import Moments, moments_of
from atoll.errors import DataError

values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9)


def _moments(numbers: list[float]) -> Moments:
    return moments_of([{"label": value} for value in numbers])


@given(first=values, second=values, third=values)
def test_moments_of_clients_are_those_of_all_rows(
    first: list[float], second: list[float], third: list[float]
) -> None:
    union = Moments().union(_moments(first)).union(_moments(second)).union(_moments(third))
    everyone = np.asarray([*first, *second, *third])
    assert union.count == len(everyone)
    assert union.mean == pytest.approx(everyone.mean(), abs=1e-6)
    spread = everyone.std()
    if spread > 1e-6:
        assert union.deviation == pytest.approx(spread, rel=1e-6)


def test_small_differences_of_large_numbers_are_seen() -> None:
    a, b = _moments([1e9, 1e9 + 1]), _moments([1e9 + 2, 1e9 + 3])
    assert a.union(b).deviation == pytest.approx(np.std([0, 1, 2, 3]))


@pytest.mark.parametrize("same", [[0.1] * 7, [0.0], [1e9] * 3, []])
def test_equal_numbers_have_no_deviation(same: list[float]) -> None:
    found = _moments(same).union(_moments(same))
    assert found.deviation == 1.0
    assert found.mean == pytest.approx(same[0] if same else 0.0)


def _folder(path: Path, clients: dict[str, list[Any]], test: list[Any] | None = None) -> Path:
    for client, labels in clients.items():
        (path / client).mkdir(parents=True)
        rows = [json.dumps({"text": "a", "label": label}) + "\n" for label in labels]
        (path / client / "train.jsonl").write_text("".join(rows))
    if test is not None:
        rows = [json.dumps({"text": "a", "label": label}) + "\n" for label in test]
        (path / "test.jsonl").write_text("".join(rows))
    return path


def _numbers(path: Path, **options: Any) -> FederatedData:
    return load(path, labels=(), **options)


def test_whole_numbers_are_numbers_where_they_are_asked_for(tmp_path: Path) -> None:
    path = _folder(tmp_path, {"ada": [3, 5, 4], "bob": [1]}, test=[10])
    found = _numbers(path, holdout=0.0)
    assert found.labels is None
    assert [row["label"] for row in found.rows("ada", "train")] == [3.0, 5.0, 4.0]
    assert found.test() == [{"text": "a", "label": 10.0}]
    assert found.moments is not None
    assert found.moments.mean == pytest.approx(3.25)
    assert found.moments.deviation == pytest.approx(np.std([3, 5, 4, 1]))
    # The same file as classes: 10 is none of them.
    with pytest.raises(DataError, match="label `10` is in test rows"):
        load(path, holdout=0.0)


def test_held_out_rows_do_not_count(tmp_path: Path) -> None:
    found = _numbers(_folder(tmp_path, {"ada": [1.0, 2.0, 4.0, 8.0]}), holdout=0.5)
    trained = [row["label"] for row in found.rows("ada", "train")]
    assert len(trained) == 2
    assert found.moments is not None
    assert (found.moments.count, found.moments.mean) == (2, pytest.approx(np.mean(trained)))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["good", 2], "a label is `good`, and a regression predicts numbers; write a number"),
        ([[1.0, 2.0], 2], r"a label is a list \(1.0, 2.0\), and a regression predicts one number"),
        ([True, 2], "a label is `true`, and a regression"),
        (["nan", 2], "a label is nan; write a finite number"),
    ],
)
def test_a_label_that_is_no_number_is_told_with_its_client(
    tmp_path: Path, labels: list[Any], message: str
) -> None:
    path = _folder(tmp_path, {"ada": [1, 2], "bob": labels})
    with pytest.raises(DataError, match=rf"^Client bob \({path}/bob/train.jsonl\): {message}"):
        _numbers(path)


def test_a_test_row_without_a_number_is_told_with_its_place(tmp_path: Path) -> None:
    path = _folder(tmp_path, {"ada": [1, 2]}, test=[3, "bad"])
    with pytest.raises(DataError, match=r"test.jsonl:2\): `bad` among labels that are numbers"):
        _numbers(path)


def test_tags_stay_names(tmp_path: Path) -> None:
    (tmp_path / "ada").mkdir()
    (tmp_path / "ada" / "train.jsonl").write_text('{"tokens": ["a"], "tags": [3]}\n' * 2)
    found = _numbers(tmp_path)
    assert (found.labels, found.moments) == (("3",), None)
