from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.data import Row
from atoll.data.labels import LabelSet, check_known, label_map, labels_of, named, numbers
from atoll.errors import DataError


def found(*labels: Any) -> LabelSet:
    return labels_of([named({"text": "a", "label": label}) for label in labels])


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (("b", "a", "b"), ("a", "b")),
        ((10, 9, "2"), ("2", "9", "10")),
        ((-1, 1, 0), ("-1", "0", "1")),
        ((True, False), ("false", "true")),
        ((["x", "y"], [], ["y", 3]), ("3", "x", "y")),
        ((1.5, 2, "3"), None),
        ((), None),
    ],
)
def test_label_map(labels: tuple[Any, ...], names: tuple[str, ...] | None) -> None:
    assert label_map(found(*labels)) == names


def test_tags_are_labels() -> None:
    row = named({"tokens": ["a", "b"], "tags": [1, "O"]})
    assert row["tags"] == ["1", "O"]
    assert labels_of([row]).names == {"1", "O"}


def test_decimals_beside_names_are_refused() -> None:
    with pytest.raises(DataError, match="mix decimal numbers with names \\(`good`\\)"):
        label_map(found(0.5, "good"))


def test_numbers_of_a_regression() -> None:
    rows: list[Row] = [{"text": "a", "label": "4"}, {"text": "b", "label": [0.5, "1"]}]
    assert [row["label"] for row in numbers(rows)] == [4.0, [0.5, 1.0]]
    assert rows[0]["label"] == "4"


def test_an_unknown_label_is_named_with_its_place() -> None:
    with pytest.raises(DataError, match=r"^Client a: label `c` is in test rows, but in no client"):
        check_known(("a", "b"), found("a", "c"), where="Client a", given=False)
    with pytest.raises(DataError, match="labels `c`, `d` are not among the labels that were given"):
        check_known(("a",), found("d", "c"), where="Client a", given=True)
    many = found(*range(20))
    with pytest.raises(DataError, match="and 12 more"):
        check_known((), many, where="Client a", given=False)


@given(st.lists(st.one_of(st.text(), st.integers(), st.booleans())))
def test_the_map_is_sorted_unique_and_complete(labels: list[Any]) -> None:
    names = label_map(found(*labels)) or ()
    assert len(set(names)) == len(names)
    assert label_map(found(*reversed(labels))) == (names or None)
    check_known(names, found(*labels), where="here", given=False)
