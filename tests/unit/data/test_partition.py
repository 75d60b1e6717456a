from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data import Partition, Row
from atoll.data.partition import (
    dirichlet,
    iid,
    natural,
    pathological,
    shard,
    size_exponential,
    size_linear,
    size_square,
)
from atoll.errors import DataError


def rows_of(labels: list[Any]) -> list[Row]:
    return [{"label": label, "client": f"c{index % 3}"} for index, label in enumerate(labels)]


def partitions(num_clients: int) -> list[Partition]:
    return [
        iid(num_clients=num_clients),
        dirichlet(num_clients=num_clients, alpha=0.1),
        dirichlet(num_clients=num_clients, alpha=100.0),
        pathological(num_clients=num_clients, classes_per_client=2),
        shard(num_clients=num_clients, shards_per_client=2),
        natural(),
        size_linear(num_clients=num_clients),
        size_square(num_clients=num_clients),
        size_exponential(num_clients=num_clients),
    ]


@settings(max_examples=40, deadline=None)
@given(
    labels=st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=60),
    num_clients=st.integers(1, 8),
    seed=st.integers(0, 2**40),
)
def test_every_row_is_in_exactly_one_part(labels: list[str], num_clients: int, seed: int) -> None:
    rows = rows_of(labels)
    for partition in partitions(num_clients):
        try:
            parts = partition(rows, seed)
        except DataError:
            continue
        assert sorted(index for part in parts.values() for index in part) == list(range(len(rows)))
        assert list(parts) == sorted(parts)
        assert partition(rows, seed) == parts


ROWS = rows_of(list("abcdefghij") * 30)


@pytest.mark.parametrize("index", range(9))
def test_all_parts_of_enough_rows(index: int) -> None:
    parts = partitions(6)[index](ROWS, 0)
    assert sum(len(part) for part in parts.values()) == 300
    assert index == 5 or list(parts) == [f"client-0{number}" for number in range(6)]
    if index != 5:  # natural clients are what they are
        assert parts != partitions(6)[index](ROWS, 1)


def sizes(parts: dict[str, list[int]]) -> list[int]:
    return [len(part) for part in parts.values()]


def classes(parts: dict[str, list[int]]) -> list[int]:
    return [len({ROWS[index]["label"] for index in part}) for part in parts.values()]


def test_iid_shares_are_equal_and_those_of_flower() -> None:
    from datasets import Dataset
    from flwr_datasets.partitioner import IidPartitioner

    theirs = IidPartitioner(7)
    theirs.dataset = Dataset.from_dict({"row": list(range(300))})
    expected = [len(theirs.load_partition(index)) for index in range(7)]
    assert sizes(iid(num_clients=7)(ROWS, 0)) == expected


def test_growing_sizes() -> None:
    assert sizes(size_linear(num_clients=3)(ROWS, 0)) == [50, 100, 150]
    assert sizes(size_square(num_clients=3)(ROWS, 0)) == [21, 85, 194]
    assert sizes(size_exponential(num_clients=3)(ROWS, 0)) == [27, 73, 200]


def test_alpha_sets_the_skew() -> None:
    strong, none = (dirichlet(num_clients=5, alpha=alpha)(ROWS, 0) for alpha in (0.05, 1e4))
    assert np.std(sizes(strong)) > 4 * np.std(sizes(none))
    assert max(classes(strong)) < 10
    assert sizes(none) == pytest.approx([60] * 5, abs=6)


def test_no_client_of_dirichlet_is_handed_the_left_over_rows() -> None:
    # 77 classes of 130 rows, as in BANKING77: edges that are cut down give the last client
    # nearly all of them.
    rows = rows_of([f"{number:02}" for number in range(77)] * 130)
    parts = dirichlet(num_clients=20, alpha=0.1)(rows, 0)
    held = [len({rows[index]["label"] for index in part}) for part in parts.values()]
    assert held[-1] == pytest.approx(np.mean(held), abs=12)


def test_min_rows_is_kept_or_refused() -> None:
    assert min(sizes(dirichlet(num_clients=5, alpha=0.5, min_rows=20)(ROWS, 0))) >= 20
    with pytest.raises(DataError, match="never left each of 5 clients 60 of the 300 rows"):
        dirichlet(num_clients=5, alpha=0.1, min_rows=60)(ROWS, 0)


def test_pathological_clients_hold_their_classes_and_all_classes_are_held() -> None:
    assert classes(pathological(num_clients=5, classes_per_client=2)(ROWS, 0)) == [2] * 5
    assert classes(pathological(num_clients=9, classes_per_client=3)(ROWS, 0)) == [3] * 9


def test_shards_have_equal_sizes_and_few_labels() -> None:
    parts = shard(num_clients=10, shards_per_client=2)(ROWS, 0)
    assert sizes(parts) == [30] * 10
    assert max(classes(parts)) <= 4


def test_natural_clients_have_their_own_names() -> None:
    rows: list[Row] = [{"owner": 10}, {"owner": "b"}, {"owner": 10}]
    assert natural(by="owner")(rows, 0) == {"10": [0, 2], "b": [1]}


def test_names_are_padded_to_sort() -> None:
    assert list(iid(num_clients=101)(ROWS, 0))[:2] == ["client-000", "client-001"]


@pytest.mark.parametrize(
    ("bind", "says"),
    [
        (lambda: iid(num_clients=0), "num_clients is 0"),
        (lambda: size_linear(num_clients=-1), "num_clients is -1"),
        (lambda: dirichlet(num_clients=2, alpha=0.0), "alpha is 0.0"),
        (lambda: dirichlet(num_clients=2, alpha=float("nan")), "alpha is nan"),
        (lambda: dirichlet(num_clients=0, alpha=1.0), "num_clients is 0"),
        (lambda: pathological(num_clients=2, classes_per_client=0), "classes_per_client is 0"),
        (lambda: shard(num_clients=2, shards_per_client=0), "shards_per_client is 0"),
    ],
)
def test_bad_arguments_are_refused_when_bound(bind: Callable[[], Partition], says: str) -> None:
    with pytest.raises(DataError, match=says):
        bind()


@pytest.mark.parametrize(
    ("partition", "says"),
    [
        (iid(num_clients=301), "301 clients are more than the 300 rows"),
        (dirichlet(num_clients=301, alpha=1.0), "301 clients are more"),
        (size_square(num_clients=301), "301 clients are more"),
        (size_exponential(num_clients=20), "leave the first client none"),
        (shard(num_clients=151, shards_per_client=2), "302 shards are more"),
        (dirichlet(num_clients=2, alpha=1.0, by="lable"), r"no `lable` .*did you mean `label`"),
        (natural(by="owner"), "Row 1 has no `owner` to partition by"),
        (pathological(num_clients=2, classes_per_client=11), "the rows have 10 classes"),
        (pathological(num_clients=3, classes_per_client=2), "cannot hold all 10 classes"),
        (pathological(num_clients=299, classes_per_client=2), "has 30 rows for"),
    ],
)
def test_what_the_rows_do_not_allow_is_refused(partition: Partition, says: str) -> None:
    with pytest.raises(DataError, match=says):
        partition(ROWS, 0)


def test_lists_and_decimals_are_no_classes() -> None:
    for value in (["a"], 0.5):
        with pytest.raises(DataError, match="names or whole numbers"):
            dirichlet(num_clients=1, alpha=1.0)([{"label": value}], 0)
