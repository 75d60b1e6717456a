"""Robust rules against numpy and torch, coordinate by coordinate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.aggregators import mean, median, trimmed_mean
from atoll.core import Channel, Payload
from atoll.errors import ConfigError
from tests.support.folds import fold, seeded_reply

RULES = [median(), trimmed_mean(fraction=0.2), trimmed_mean(fraction=0.0)]


def _rows(replies: Sequence[Payload], name: str) -> torch.Tensor:
    return torch.stack([reply["update"].tree[name] for reply in replies])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 10])
def test_median_against_numpy_and_torch(count: int) -> None:
    replies = [seeded_reply(k, weight=k + 1.0) for k in range(count)]
    update = fold(replies, median())["update"].tree
    for name, value in update.items():
        rows = _rows(replies, name)
        np.testing.assert_allclose(value.numpy(), np.median(rows.numpy(), axis=0), rtol=1e-6)
        if count % 2:
            assert torch.equal(value, rows.median(dim=0).values)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.2, 0.29, 0.34, 0.49])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 100])
def test_trimmed_mean_against_numpy(fraction: float, count: int) -> None:
    replies = [seeded_reply(k, weight=k + 1.0) for k in range(count)]
    drop = (round(fraction * 100) * count) // 100
    assert count - 2 * drop > 0
    update = fold(replies, trimmed_mean(fraction=fraction))["update"].tree
    for name, value in update.items():
        rows = np.sort(_rows(replies, name).double().numpy(), axis=0)
        expected = rows[drop : count - drop].mean(axis=0)
        np.testing.assert_allclose(value.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_as_much_as_possible_is_trimmed_to_the_median(count: int) -> None:
    replies = [seeded_reply(k) for k in range(count)]
    most = fold(replies, trimmed_mean(fraction=np.nextafter(0.5, 0)))["update"].tree
    torch.testing.assert_close(most, fold(replies, median())["update"].tree)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_nothing_trimmed_is_the_unweighted_mean(count: int) -> None:
    replies = [seeded_reply(k) for k in range(count)]
    torch.testing.assert_close(
        fold(replies, trimmed_mean(fraction=0.0))["update"].tree,
        fold(replies, mean())["update"].tree,
        rtol=1e-6,
        atol=1e-6,
    )


@given(st.floats(-1e30, 1e30), st.integers(0, 4))
@settings(deadline=None, max_examples=30)
def test_one_client_of_five_cannot_leave_the_others_range(value: float, place: int) -> None:
    honest = [seeded_reply(k) for k in range(4)]
    liar = {
        **seeded_reply(9),
        "update": Channel({"a": torch.full((2, 3), value), "b": torch.ones(())}),
    }
    replies = [*honest[:place], liar, *honest[place:]]
    rows = _rows(honest, "a")
    for rule in (median(), trimmed_mean(fraction=0.2)):
        got = fold(replies, rule)["update"].tree["a"]
        assert bool((got >= rows.min(0).values - 1e-6).all())
        assert bool((got <= rows.max(0).values + 1e-6).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_values_do_not_overflow(dtype: torch.dtype) -> None:
    top = torch.finfo(dtype).max
    for rule in RULES[: 1 if dtype == torch.float64 else None]:
        state = rule.init({"update": Channel({"a": torch.zeros(2, dtype=dtype)})})
        for share in (0.90, 0.96):
            value = torch.tensor([share, -share], dtype=dtype) * top
            state = rule.add(state, {"update": Channel({"a": value})})
        found = rule.finish(state)["update"].tree["a"]
        torch.testing.assert_close(found / top, torch.tensor([0.93, -0.93], dtype=dtype))


@pytest.mark.parametrize("fraction", [-0.1, 0.5, 1.0, float("nan")])
def test_at_least_one_value_is_left(fraction: float) -> None:
    with pytest.raises(ConfigError) as caught:
        trimmed_mean(fraction=fraction)
    assert str(caught.value) == (
        f"aggregator 'trimmed_mean': fraction is {fraction}; give a number from 0 to below 0.5, "
        "since it is dropped at both ends"
    )
