"""Clipped sums by brute force: a loss that is linear in its values has any gradient one likes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atoll.local.row_gradients import add_clipped
from atoll.tree import Tree

SHAPES = {"a": (2, 3), "b": (4,), "c": ()}
SIZE = 11
VALUES = (0.0, -0.0, 1e-30, 1e-8, 0.5, -3.0, 7.25e4, 1e30, -3e38, math.nan, math.inf, -math.inf)


def linear(gradients: Tensor, owners: Tensor, clip: float, clients: int) -> Tensor:
    """[K, P]: the clipped sum of rows whose gradients are the given ones [N, P]."""
    values = {n: torch.ones(clients, *shape).to(gradients) for n, shape in SHAPES.items()}

    def losses(at: Tree) -> Tensor:
        assert all(len(value) == len(owners) for value in at.values())
        flat = torch.cat([value.reshape(len(owners), -1) for value in at.values()], dim=1)
        return (flat * gradients).sum(1)

    sums = torch.zeros(clients, SIZE, dtype=torch.float64)
    add_clipped(sums, values, owners, clip, losses)
    return sums


def exactly(row: Tensor, clip: float) -> Tensor:
    """One clipped gradient, number by number in Python's own floats."""
    numbers = [float(x) for x in row]
    if not all(map(math.isfinite, numbers)):
        return torch.zeros(len(numbers), dtype=torch.float64)
    norm = math.hypot(*numbers)
    scale = min(1.0, clip / norm) if norm else 1.0
    return torch.tensor([x * scale for x in numbers], dtype=torch.float64)


rows = st.lists(
    st.lists(st.sampled_from(VALUES) | st.floats(-10, 10, width=32), min_size=SIZE, max_size=SIZE),
    min_size=1, max_size=9,
)  # fmt: skip


@settings(max_examples=200)
@given(rows, st.sampled_from([1e-3, 0.7, 5e5]), st.sampled_from([torch.float32, torch.float64]))
def test_one_row_more_or_less_moves_a_sum_by_the_clip(
    drawn: list[list[float]], clip: float, dtype: torch.dtype
) -> None:
    gradients = torch.tensor(drawn, dtype=dtype)
    owners = torch.zeros(len(drawn), dtype=torch.int64)
    whole = linear(gradients, owners, clip, 1)
    assert bool(whole.isfinite().all())
    for left_out in range(len(drawn)):
        rest = [i for i in range(len(drawn)) if i != left_out]
        without = (
            linear(gradients[rest], owners[rest], clip, 1) if rest else torch.zeros_like(whole)
        )
        assert float((whole - without).norm()) <= clip * (1 + 1e-6)
    each = torch.stack([exactly(row, clip) for row in gradients]).sum(0)
    torch.testing.assert_close(whole[0], each, rtol=1e-12, atol=1e-12 * clip)


def test_clients_of_one_pass_keep_to_themselves() -> None:
    draw = torch.Generator().manual_seed(3)
    gradients = torch.randn(7, SIZE, generator=draw, dtype=torch.float64) * 2
    gradients[4, 2] = math.nan
    owners = torch.tensor([2, 0, 2, 2, 0, 3, 0])
    found = linear(gradients, owners, 1.0, 4)
    for k in range(4):
        mine = [
            exactly(row, 1.0) for row, owner in zip(gradients, owners, strict=True) if owner == k
        ]
        want = torch.stack(mine).sum(0) if mine else torch.zeros(SIZE, dtype=torch.float64)
        torch.testing.assert_close(found[k], want)
    assert not found[1].any()
    assert min(float(found[k].norm()) for k in (0, 2, 3)) > 0.9


def test_a_second_piece_adds_to_the_first() -> None:
    values, owners = {"a": torch.zeros(1, 3)}, torch.tensor([0])
    sums = torch.zeros(1, 3, dtype=torch.float64)
    for place in range(3):
        losses = add_clipped(sums, values, owners, 2.0, lambda at, i=place: 7 * at["a"][:, i] + i)
        assert losses.tolist() == [place]
        assert not losses.requires_grad
    assert sums.tolist() == [[2.0, 2.0, 2.0]]


@pytest.mark.parametrize("clip", [0.5, 100.0])
def test_it_is_the_norm_over_all_values_together(clip: float) -> None:
    gradients = torch.full((1, SIZE), 3.0)
    found = linear(gradients, torch.tensor([0]), clip, 1)
    assert float(found.norm()) == pytest.approx(min(clip, 3 * math.sqrt(SIZE)), rel=1e-12)
