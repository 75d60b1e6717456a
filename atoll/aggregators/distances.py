"""Distances between updates, and rules that weigh them by nothing else.

Whatever moves among n points along lines between them (a choice, a mean, an iteration of
Weiszfeld's) is a combination of them, and all its distances follow from the n × n inner products.
So updates are read twice, for the products and for the result, however many iterations there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from atoll.aggregators.gathered import Rule
from atoll.core import Tree

__all__ = ["Weigh", "distances", "measured", "mixed", "scores", "to_blend", "weighing"]

BLOCK = 1 << 14
"""Values of each update that are multiplied at once."""

Weigh = Callable[[Tensor], Tensor]
"""Inner products of n updates, [n, n] -> what each of them weighs in the result, [n]."""


def weighing(weigh: Weigh) -> Rule:
    """The rule that adds up updates by what `weigh` says; those that cannot be measured by 0."""

    def combine(updates: Sequence[Tree]) -> Tree:
        places, inner = measured(updates)
        weights = torch.zeros(len(updates), dtype=torch.float64)
        if len(places):
            weights[places] = weigh(inner)
        return mixed(updates, weights[None])[0]

    return combine


def measured(updates: Sequence[Tree]) -> tuple[Tensor, Tensor]:
    """The places of updates whose distances are numbers in float64, and their x_i · x_j.

    Values of float64 above 10¹⁵⁰ have squares that are none.
    """
    inner = torch.zeros(len(updates), len(updates), dtype=torch.float64)
    for name in sorted(updates[0]):
        rows = [update[name].reshape(-1) for update in updates]
        for start in range(0, len(rows[0]), BLOCK):
            block = torch.stack([row[start : start + BLOCK] for row in rows]).double()
            inner += block @ block.T
    # A squared distance is at most four times the larger squared norm.
    places = torch.isfinite(4 * inner.diagonal()).nonzero().flatten()
    inner = inner[places][:, places]
    # A product of matrices need not round alike on both sides of its diagonal.
    return places, (inner + inner.T) / 2


def distances(inner: Tensor) -> Tensor:
    """‖x_i − x_j‖² from the inner products, [n, n]."""
    norms = inner.diagonal()
    # Of points that are one, rounding may leave less than nothing.
    found = (norms[:, None] + norms[None, :] - 2 * inner).clamp(min=0)
    return found.fill_diagonal_(0)


def scores(squared: Tensor, nearest: int) -> Tensor:
    """The sum of each update's `nearest` smallest squared distances to others, [n]."""
    # The smallest of all is its own.
    return squared.sort(dim=1).values[:, 1 : 1 + nearest].sum(dim=1)


def to_blend(inner: Tensor, weights: Tensor) -> Tensor:
    """‖x_i − Σ_j w_j x_j‖, [n]."""
    there = inner @ weights
    squared = inner.diagonal() - 2 * there + weights @ there
    return squared.clamp(min=0).sqrt()


def mixed(updates: Sequence[Tree], weights: Tensor) -> list[Tree]:
    """Σ_k w_jk x_k for each j, in float64; weights [m, n]. What weighs nothing is not read."""
    used = weights.any(dim=0).nonzero().flatten().tolist() or [0]
    weights, first = weights[:, used], updates[0]
    # All of the result before any block: else the heap grows between them.
    found = {n: torch.empty(len(weights), x.numel(), dtype=x.dtype) for n, x in first.items()}
    for name, values in found.items():
        rows = [updates[k][name].reshape(-1) for k in used]
        for start in range(0, values.shape[1], BLOCK):
            block = torch.stack([row[start : start + BLOCK] for row in rows]).double()
            values[:, start : start + BLOCK] = weights @ block
    return [
        {name: values[j].view(first[name].shape) for name, values in found.items()}
        for j in range(len(weights))
    ]
