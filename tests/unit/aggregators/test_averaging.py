"""The mean against numpy, with unequal weights, nobody, one client, and any order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.aggregators import mean
from atoll.core import Aggregator, Channel, Payload

WEIGHTS = [5.0, 1.0, 14.0, 0.0]


def _reply(seed: int, *, weight: float = 1.0, examples: float = 2.0) -> Payload:
    generator = torch.Generator().manual_seed(seed)
    return {
        "update": Channel(
            {"a": torch.randn(2, 3, generator=generator), "b": torch.randn(4, generator=generator)},
            weight="weight",
        ),
        "weight": Channel({"value": torch.tensor(weight)}, reduce="sum"),
        "examples": Channel({"count": torch.tensor(examples)}, reduce="sum"),
        "metrics": Channel({"loss": torch.tensor(float(seed))}, weight="examples"),
        "plain": Channel({"x": torch.tensor([seed + 0.5])}),
        "ids": Channel({"rows": torch.tensor([seed])}, reduce="none"),
    }


def _fold(replies: Sequence[Payload], aggregator: Aggregator | None = None) -> Payload:
    aggregator = aggregator or mean()
    like = {
        name: channel.with_tree({key: value.to("meta") for key, value in channel.tree.items()})
        for name, channel in _reply(0).items()
    }
    state = aggregator.init(like)
    for reply in replies:
        state = aggregator.add(state, reply)
    return aggregator.finish(state)


def test_against_numpy_with_unequal_weights() -> None:
    replies = [_reply(k, weight=w, examples=3.0 * k) for k, w in enumerate(WEIGHTS)]
    result = _fold(replies)
    for name in ("a", "b"):
        rows = np.stack([reply["update"].tree[name].double().numpy() for reply in replies])
        expected = np.average(rows, axis=0, weights=WEIGHTS)
        np.testing.assert_allclose(result["update"].tree[name].numpy(), expected, atol=1e-6)
    assert float(result["weight"].tree["value"]) == 20.0
    assert float(result["examples"].tree["count"]) == 0 + 3 + 6 + 9
    loss = float(result["metrics"].tree["loss"])
    assert loss == pytest.approx((0 * 0 + 3 * 1 + 6 * 2 + 9 * 3) / 18, rel=1e-6)
    assert float(result["plain"].tree["x"]) == pytest.approx(np.mean([0.5, 1.5, 2.5, 3.5]))


def test_what_is_not_reduced_is_left_out() -> None:
    result = _fold([_reply(0)])
    assert result.keys() == {"update", "weight", "examples", "metrics", "plain"}
    assert {name: channel.reduce for name, channel in result.items() if name != "update"} == {
        "weight": "sum", "examples": "sum", "metrics": "mean", "plain": "mean",
    }  # fmt: skip


def test_nobody_gives_zeros() -> None:
    for replies in ([], [_reply(1, weight=0.0, examples=0.0)]):
        result = _fold(replies)
        assert torch.equal(result["update"].tree["a"], torch.zeros(2, 3))
        assert torch.equal(result["update"].tree["b"], torch.zeros(4))
        assert float(result["weight"].tree["value"]) == 0.0
        assert float(result["metrics"].tree["loss"]) == 0.0


def test_one_client_is_its_own_mean() -> None:
    reply = _reply(3, weight=7.0)
    result = _fold([reply])
    torch.testing.assert_close(result["update"].tree, reply["update"].tree)
    assert float(result["metrics"].tree["loss"]) == 3.0


@given(st.permutations(range(6)))
@settings(deadline=None, max_examples=40)
def test_the_order_of_clients_does_not_matter(order: list[int]) -> None:
    replies = [_reply(k, weight=10.0**k) for k in range(6)]
    shuffled = _fold([replies[k] for k in order])["update"].tree
    for name, value in _fold(replies)["update"].tree.items():
        torch.testing.assert_close(shuffled[name], value, atol=1e-6, rtol=1e-6)


@given(st.lists(st.floats(0.125, 1000, width=32), min_size=1, max_size=6), st.floats(0.1, 10))
@settings(deadline=None, max_examples=40)
def test_only_the_ratios_of_weights_matter(weights: list[float], factor: float) -> None:
    once = _fold([_reply(k, weight=w) for k, w in enumerate(weights)])
    again = _fold([_reply(k, weight=w * factor) for k, w in enumerate(weights)])
    torch.testing.assert_close(once["update"].tree, again["update"].tree, atol=1e-5, rtol=1e-5)


def test_names_go_together_in_any_order() -> None:
    reply = _reply(2)
    backwards = {
        name: channel.with_tree(dict(reversed(channel.tree.items())))
        for name, channel in reversed(reply.items())
    }
    torch.testing.assert_close(_fold([reply])["update"].tree, _fold([backwards])["update"].tree)


def test_half_precision_is_summed_in_float32() -> None:
    like: Payload = {"update": Channel({"a": torch.zeros(1, dtype=torch.bfloat16)})}
    state = mean().init(like)
    for _ in range(1000):
        one = torch.ones(1, dtype=torch.bfloat16)
        state = mean().add(state, {"update": Channel({"a": one})})
    result = mean().finish(state)["update"].tree["a"]
    assert result.dtype == torch.float32
    assert float(result) == 1.0


def test_float64_and_integers_keep_all_digits() -> None:
    payload: Payload = {
        "gram": Channel({"x": torch.tensor([1e16, 1.0], dtype=torch.float64)}, reduce="sum"),
        "rows": Channel({"n": torch.tensor(2**31 - 1, dtype=torch.int32)}, reduce="sum"),
    }
    state = mean().init(payload)
    for _ in range(3):
        state = mean().add(state, payload)
    result = mean().finish(state)
    assert torch.equal(result["gram"].tree["x"], torch.tensor([3e16, 3.0], dtype=torch.float64))
    assert int(result["rows"].tree["n"]) == 3 * (2**31 - 1)


def test_no_payload_is_changed_and_no_zero_is_shared() -> None:
    reply, aggregator = _reply(1, weight=2.0), mean()
    empty, other = aggregator.init(reply), aggregator.init(reply)
    aggregator.finish(aggregator.add(aggregator.add(empty, reply), reply))
    assert all(float(value.sum()) == 0 for tree in other.values() for value in tree.values())
    for name, channel in _reply(1, weight=2.0).items():
        torch.testing.assert_close(reply[name].tree, channel.tree, rtol=0, atol=0)


def test_the_sum_stays_where_it_is_and_so_does_the_mean() -> None:
    aggregator = mean()
    state = aggregator.add(aggregator.init(_reply(0)), _reply(0))
    place = state["sum:update"]["a"].data_ptr()
    state = aggregator.add(state, _reply(1))
    assert state["sum:update"]["a"].data_ptr() == place
    assert aggregator.finish(state)["update"].tree["a"].data_ptr() == place


@given(st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=5))
@settings(deadline=None, max_examples=40)
def test_adding_in_place_keeps_every_bit(weights: list[float]) -> None:
    replies = [_reply(k, weight=w) for k, w in enumerate(weights)]
    total, divisor = torch.zeros(2, 3), 0.0
    for reply, weight in zip(replies, weights, strict=True):
        total = torch.add(total, reply["update"].tree["a"], alpha=weight)
        divisor += weight
    assert torch.equal(_fold(replies)["update"].tree["a"], total / (divisor or 1.0))


def test_the_state_does_not_grow_with_the_cohort() -> None:
    aggregator, sizes = mean(), set()
    state = aggregator.init(_reply(0))
    for k in range(4):
        sizes.add(sum(value.numel() for tree in state.values() for value in tree.values()))
        state = aggregator.add(state, _reply(k))
    assert len(sizes) == 1


def test_a_reply_with_other_channels_is_a_bug() -> None:
    state = mean().init({"update": Channel({"a": torch.zeros(1)})})
    with pytest.raises(AssertionError, match="other channels"):
        mean().add(state, {})
    assert (mean().linear, mean().weighted) == (True, True)
