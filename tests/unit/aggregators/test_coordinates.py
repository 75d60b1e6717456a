"""Robust rules against numpy and torch, coordinate by coordinate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.aggregators import mean, median, trimmed_mean
from atoll.core import Aggregator, Channel, Payload
from atoll.errors import ConfigError

RULES = [median(), trimmed_mean(fraction=0.2), trimmed_mean(fraction=0.0)]


def _reply(seed: int, *, weight: float = 1.0) -> Payload:
    generator = torch.Generator().manual_seed(seed)
    return {
        "update": Channel(
            {
                "a": torch.randn(2, 3, generator=generator),
                "b": torch.randn((), generator=generator),
            },
            weight="weight",
        ),
        "weight": Channel({"value": torch.tensor(weight)}, reduce="sum"),
        "examples": Channel({"count": torch.tensor(weight)}, reduce="sum"),
        "metrics": Channel({"loss": torch.tensor(float(seed))}, weight="examples"),
        "ids": Channel({"rows": torch.tensor([seed])}, reduce="none"),
    }


def _fold(replies: Sequence[Payload], aggregator: Aggregator) -> Payload:
    like = {
        name: channel.with_tree({key: value.to("meta") for key, value in channel.tree.items()})
        for name, channel in _reply(0).items()
    }
    state = aggregator.init(like)
    for reply in replies:
        state = aggregator.add(state, reply)
    return aggregator.finish(state)


def _rows(replies: Sequence[Payload], name: str) -> torch.Tensor:
    return torch.stack([reply["update"].tree[name] for reply in replies])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 10])
def test_median_against_numpy_and_torch(count: int) -> None:
    replies = [_reply(k, weight=k + 1.0) for k in range(count)]
    update = _fold(replies, median())["update"].tree
    for name, value in update.items():
        rows = _rows(replies, name)
        np.testing.assert_allclose(value.numpy(), np.median(rows.numpy(), axis=0), rtol=1e-6)
        if count % 2:
            assert torch.equal(value, rows.median(dim=0).values)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.2, 0.29, 0.34, 0.49])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 100])
def test_trimmed_mean_against_numpy(fraction: float, count: int) -> None:
    replies = [_reply(k, weight=k + 1.0) for k in range(count)]
    drop = (round(fraction * 100) * count) // 100
    assert count - 2 * drop > 0
    update = _fold(replies, trimmed_mean(fraction=fraction))["update"].tree
    for name, value in update.items():
        rows = np.sort(_rows(replies, name).double().numpy(), axis=0)
        expected = rows[drop : count - drop].mean(axis=0)
        np.testing.assert_allclose(value.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_as_much_as_possible_is_trimmed_to_the_median(count: int) -> None:
    replies = [_reply(k) for k in range(count)]
    most = _fold(replies, trimmed_mean(fraction=np.nextafter(0.5, 0)))["update"].tree
    torch.testing.assert_close(most, _fold(replies, median())["update"].tree)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_nothing_trimmed_is_the_unweighted_mean(count: int) -> None:
    replies = [_reply(k) for k in range(count)]
    torch.testing.assert_close(
        _fold(replies, trimmed_mean(fraction=0.0))["update"].tree,
        _fold(replies, mean())["update"].tree,
        rtol=1e-6,
        atol=1e-6,
    )


@given(st.permutations(range(5)))
@settings(deadline=None, max_examples=30)
def test_the_order_of_clients_does_not_matter(order: list[int]) -> None:
    replies = [_reply(k) for k in range(5)]
    for rule in RULES:
        once = _fold(replies, rule)["update"].tree
        again = _fold([replies[k] for k in order], rule)["update"].tree
        torch.testing.assert_close(again, once, rtol=1e-6, atol=1e-7)


@given(st.floats(-1e30, 1e30), st.integers(0, 4))
@settings(deadline=None, max_examples=30)
def test_one_client_of_five_cannot_leave_the_others_range(value: float, place: int) -> None:
    honest = [_reply(k) for k in range(4)]
    liar = {**_reply(9), "update": Channel({"a": torch.full((2, 3), value), "b": torch.ones(())})}
    replies = [*honest[:place], liar, *honest[place:]]
    rows = _rows(honest, "a")
    for rule in (median(), trimmed_mean(fraction=0.2)):
        got = _fold(replies, rule)["update"].tree["a"]
        assert bool((got >= rows.min(0).values - 1e-6).all())
        assert bool((got <= rows.max(0).values + 1e-6).all())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_other_channels_are_as_in_a_mean(rule: Aggregator) -> None:
    replies = [_reply(k, weight=w) for k, w in enumerate([5.0, 1.0, 14.0])]
    got, plain = _fold(replies, rule), _fold(replies, mean())
    assert got.keys() == plain.keys() == {"update", "weight", "examples", "metrics"}
    for name in ("weight", "examples", "metrics"):
        torch.testing.assert_close(got[name].tree, plain[name].tree, rtol=0, atol=0)
        assert got[name].reduce == plain[name].reduce
    assert float(got["metrics"].tree["loss"]) == pytest.approx((1 * 1 + 14 * 2) / 20)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_nobody_gives_zeros_and_one_client_its_own(rule: Aggregator) -> None:
    empty = _fold([], rule)
    assert torch.equal(empty["update"].tree["a"], torch.zeros(2, 3))
    assert float(empty["weight"].tree["value"]) == 0.0
    alone = _fold([_reply(4, weight=3.0)], rule)
    assert torch.equal(alone["update"].tree["a"], _reply(4)["update"].tree["a"])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_no_payload_is_changed(rule: Aggregator) -> None:
    replies = [_reply(k) for k in range(3)]
    for told in (replies, replies[:1], replies[1:]):
        _fold(told, rule)["update"].tree["a"].zero_()
    for k, reply in enumerate(replies):
        for name, channel in _reply(k).items():
            torch.testing.assert_close(reply[name].tree, channel.tree, rtol=0, atol=0)


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


def test_half_precision() -> None:
    replies: list[Payload] = [
        {"update": Channel({"a": torch.tensor([x], dtype=torch.bfloat16)})} for x in (1, 2, 4, 8)
    ]
    state = median().init(replies[0])
    for reply in replies:
        state = median().add(state, reply)
    result = median().finish(state)["update"].tree["a"]
    assert (result.dtype, float(result)) == (torch.float32, 3.0)


@pytest.mark.parametrize("fraction", [-0.1, 0.5, 1.0, float("nan")])
def test_at_least_one_value_is_left(fraction: float) -> None:
    with pytest.raises(ConfigError) as caught:
        trimmed_mean(fraction=fraction)
    assert str(caught.value) == (
        f"aggregator 'trimmed_mean': fraction is {fraction}; give a number from 0 to below 0.5, "
        "since it is dropped at both ends"
    )


def test_facts() -> None:
    for rule in RULES:
        assert not rule.linear
        assert not rule.weighted
    assert [rule.name for rule in RULES] == ["median", "trimmed_mean", "trimmed_mean"]
