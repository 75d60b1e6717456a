"""Sums on a grid: exact, in any order, and one client moves them by what it sent at most."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from atoll.aggregators import on_grid
from atoll.core import Channel, Context, Payload
from atoll.errors import ConfigError, PayloadError
from atoll.stages import clip

STEP = 2.0**-12
CONTEXT = Context(0, "run", 1, 0, ("a",), 1, "a")
Values = arrays(np.float32, (3, 4), elements=st.floats(-10, 10, width=32))


def _payload(value: Tensor, weight: float = 1.0) -> Payload:
    return {
        "update": Channel({"w": value}, "mean", weight="weight"),
        "weight": Channel({"value": torch.tensor(weight)}, "sum"),
    }


def _sum(values: list[Tensor], step: float = STEP) -> Tensor:
    fold = on_grid(step=step)
    state = fold.init(_payload(torch.zeros(3, 4)))
    for value in values:
        state = fold.add(state, _payload(value))
    return fold.finish(state)["update"].tree["w"]


@given(st.lists(Values, max_size=4))
def test_the_sum_of_values_cut_towards_zero(found: list[np.ndarray]) -> None:
    values = [torch.from_numpy(value) for value in found]
    want = sum((np.trunc(v.astype(np.float64) / STEP) * STEP for v in found), np.zeros((3, 4)))
    assert np.array_equal(_sum(values).numpy(), want)


@given(st.lists(Values, min_size=3, max_size=3))
def test_no_order_of_clients_changes_a_bit(found: list[np.ndarray]) -> None:
    values = [torch.from_numpy(value) for value in found]
    sums = [_sum(list(order)) for order in itertools.permutations(values)]
    assert all(torch.equal(one, sums[0]) for one in sums)


@given(st.lists(Values, min_size=1, max_size=4), st.data())
def test_a_client_more_moves_the_sum_by_the_bound_at_most(
    found: list[np.ndarray], data: st.DataObject
) -> None:
    bound = 0.5
    clipped = [_clipped(torch.from_numpy(value), bound) for value in found]
    left_out = data.draw(st.integers(0, len(clipped) - 1))
    without = clipped[:left_out] + clipped[left_out + 1 :]
    moved = torch.linalg.vector_norm(_sum(clipped) - _sum(without))
    assert float(moved) <= bound


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1.0, 1e3, 1e30, float("inf"), float("nan")])
def test_what_is_clipped_is_bounded_or_refused(size: float, dtype: torch.dtype) -> None:
    value = torch.full((50, 40), size).to(dtype)
    if not torch.isfinite(value).all():
        with pytest.raises(PayloadError, match="not finite"):
            _clipped(value, 0.3)
        return
    assert float(torch.linalg.vector_norm(_clipped(value, 0.3).double())) <= 0.3 * (1 + 1e-6)


def _clipped(value: Tensor, bound: float) -> Tensor:
    payload, _ = clip(norm=bound).encode(CONTEXT, _payload(value), {})
    return payload["update"].tree["w"]


def test_nobody_adds_zero_and_weights_are_not_read() -> None:
    assert torch.equal(_sum([]), torch.zeros(3, 4, dtype=torch.float64))
    fold = on_grid(step=STEP)
    state = fold.add(fold.init(_payload(torch.zeros(1))), _payload(torch.ones(1), weight=9.0))
    assert float(fold.finish(state)["update"].tree["w"]) == 1.0
    assert (fold.linear, fold.weighted, fold.undivided) == (True, False, True)


@pytest.mark.parametrize("step", [0.3, 0.0, -0.5, 3.0])
def test_a_step_that_is_no_power_of_two(step: float) -> None:
    with pytest.raises(ConfigError, match="give a power of 2"):
        on_grid(step=step)
