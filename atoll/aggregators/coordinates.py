"""Robust rules that look at each coordinate of `update` over all clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from atoll.aggregators.gathered import robust
from atoll.core import Aggregator, Tree
from atoll.errors import ConfigError

__all__ = ["Ordered", "by_coordinate", "median", "middle", "trimmed_mean"]

Ordered = NDArray[Any]
"""[coordinates, n]: the values of all clients, in rising order along n."""
BLOCK = 1 << 14
"""Coordinates that are ordered at once: they stay in a processor's cache."""


def median() -> Aggregator:
    """The median of each coordinate; the mean of the two middle ones when their number is even.

    Source: Yin, Chen, Kannan, Bartlett, Byzantine-Robust Distributed Learning: Towards Optimal
    Statistical Rates (ICML 2018, arXiv 1803.01498), Definition 1 and Algorithm 1, option I.
    """
    return robust("median", lambda updates: by_coordinate(updates, middle))


def trimmed_mean(*, fraction: float) -> Aggregator:
    """The mean of each coordinate without its floor(fraction · n) smallest and as many largest.

    Source: Yin et al. (as `median`), Definition 2 and Algorithm 1, option II.
    """
    if not 0 <= fraction < 0.5:
        raise ConfigError(
            f"aggregator 'trimmed_mean': fraction is {fraction}; give a number from 0 to below "
            "0.5, since it is dropped at both ends"
        )

    def combine(ordered: Ordered) -> Ordered:
        count = ordered.shape[1]
        # 0.29 · 100 is a little below 29 in floating point; one value always is left.
        drop = min(int(fraction * count + 1e-9), (count - 1) // 2)
        # In float64, where the sum of large values does not overflow.
        kept: Ordered = ordered[:, drop : count - drop].mean(axis=1, dtype=np.float64)
        return kept

    return robust("trimmed_mean", lambda updates: by_coordinate(updates, combine))


def middle(ordered: Ordered) -> Ordered:
    """The median of each coordinate."""
    count = ordered.shape[1]
    high: Ordered = ordered[:, count // 2]
    # Halved first: the sum of two large values is infinite.
    return high if count % 2 else ordered[:, count // 2 - 1] / 2 + high / 2


def by_coordinate(updates: Sequence[Tree], combine: Callable[[Ordered], Ordered]) -> Tree:
    """What `combine` makes of each coordinate; only a block of them is in memory a second time."""
    # All of the result before any block: else the heap grows between them.
    found = {name: torch.empty(like.numel(), dtype=like.dtype) for name, like in updates[0].items()}
    for name, values in found.items():
        rows = [update[name].reshape(-1) for update in updates]
        for start in range(0, values.numel(), BLOCK):
            # Each coordinate's values side by side: so they are ordered in half the time.
            block = np.ascontiguousarray(
                torch.stack([row[start : start + BLOCK] for row in rows]).numpy().T
            )
            block.sort(axis=1)
            values[start : start + BLOCK] = torch.from_numpy(combine(block))
    return {name: values.view(updates[0][name].shape) for name, values in found.items()}
