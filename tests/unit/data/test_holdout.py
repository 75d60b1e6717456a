from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.data import Row
from atoll.data.holdout import check_share, hold_out
from atoll.errors import DataError


def rows_of(labels: list[str]) -> list[Row]:
    return [{"text": str(index), "label": label} for index, label in enumerate(labels)]


@given(
    labels=st.lists(st.sampled_from("abc"), max_size=40),
    share=st.floats(0, 0.9),
    seed=st.integers(0, 9),
)
def test_a_share_is_held_out_and_no_row_is_lost(labels: list[str], share: float, seed: int) -> None:
    rows = rows_of(labels)
    train, held = hold_out(rows, share=share, seed=seed, client="c")
    assert sorted(train + held, key=rows.index) == rows
    if share == 0 or len(rows) < 2:
        assert held == []
    else:
        assert len(held) == min(max(1, round(share * len(rows))), len(rows) - 1)
    assert hold_out(rows, share=share, seed=seed, client="c") == (train, held)


def test_the_draw_depends_on_seed_and_client() -> None:
    rows = rows_of(["a"] * 1000)
    draws = [
        hold_out(rows, share=0.1, seed=seed, client=client)[1]
        for seed, client in ((0, "a"), (0, "b"), (1, "a"))
    ]
    assert draws[0] != draws[1] != draws[2] != draws[0]


@given(seed=st.integers(0, 999))
def test_the_last_row_of_a_label_stays_in_training(seed: int) -> None:
    train, held = hold_out(rows_of(["rare", *"aaaaabbbbb"]), share=0.3, seed=seed, client="c")
    assert len(held) == 3
    assert {row["label"] for row in train} == {"rare", "a", "b"}


def test_rows_of_all_different_labels_are_still_held_out() -> None:
    assert len(hold_out(rows_of(list("abcd")), share=0.5, seed=0, client="c")[1]) == 2


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_is_below_one(share: float) -> None:
    with pytest.raises(DataError, match="holdout is"):
        check_share(share)
