"""Updates that clients hide before they leave."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from atoll.accounting.grid import Plan
from atoll.aggregators import on_grid
from atoll.core import Algorithm, Context, Payload, Stage, Tree
from atoll.noise import Stream, discrete_gaussian, rounded, skellam, standard_normal
from atoll.protection.central import check_linear
from atoll.servers.noised import divided
from atoll.stages import clip, uniform, withhold
from atoll.tree import digest

__all__ = ["apart", "own_noise", "share"]

UPDATE = "update"
FINE = 19
"""A noisy value is a whole number of steps, and fits the 24 bits of a float32."""


def apart(
    algorithm: Algorithm,
    stages: Sequence[Stage],
    norm: float,
    expected: float,
    sigma: Callable[[], float] | None,
    key: Callable[[Context, str], bytes],
) -> Algorithm:
    """The algorithm, whose updates are cut to `norm`, hidden, and summed over `expected` clients.

    stages: its own and the file's, before updates are cut.
    sigma, key: as `own_noise`; None: noise comes with what seals the sum.

    Raises:
        CompositionError: when something would leave clients in the open.
    """
    check_linear(algorithm)
    hiding = () if sigma is None else (own_noise(sigma, key),)
    return replace(
        algorithm,
        stages=(uniform(), withhold(), *stages, clip(norm=norm), *hiding),
        # Noise is on a grid of its own, which this one holds.
        aggregator=on_grid(step=2.0 ** (math.floor(math.log2(norm)) - 2 * FINE)),
        server=divided(algorithm.server, expected),
    )


def own_noise(sigma: Callable[[], float], key: Callable[[Context, str], bytes]) -> Stage:
    """Gaussian noise of standard deviation σ on each value of an update, both cut to one grid.

    key: (moment, what is hidden) -> a secret: the same update has the same noise when it is asked
    for again, and another one has other noise, so that no difference shows what is under it.
    Source: Balle, Wang, Improving the Gaussian Mechanism for Differential Privacy (ICML 2018, arXiv
    1805.06530); the grid: Mironov (CCS 2012).
    """

    def encode(context: Context, payload: Payload, state: Tree) -> tuple[Payload, Tree]:
        channel, deviation = payload[UPDATE], sigma()
        said = bytes(digest(channel.tree).tolist()).hex()
        longest = max(deviation, channel.l2 or 0.0)
        step, own = 2.0 ** (math.floor(math.log2(longest)) - FINE), key(context, said)
        tree: Tree = {}
        for name, value in sorted(channel.tree.items()):
            noise = standard_normal(Stream(own, "noise", name), value.shape)
            steps = noise.mul_(deviation / step).round_()
            # Towards zero, which makes no update longer.
            steps += value.detach().cpu().double().div(step).trunc_()
            tree[name] = steps.mul_(step).to(value)
        return {**payload, UPDATE: replace(channel.with_tree(tree), l2=None)}, state

    return Stage("own_noise", (UPDATE,), encode, needs_bound=True, lossy=True)


def share(plan: Plan, values: NDArray[np.float32], key: bytes) -> NDArray[np.int32]:
    """One client's vector in whole steps of the plan's grid, with its share of the sum's noise.

    Source: Kairouz, Liu, Steinke (ICML 2021, arXiv 2102.06387), Algorithm 1, without the rotation;
    with Skellam noise Agarwal, Kairouz, Liu (NeurIPS 2021, arXiv 2110.04995), Algorithm 1.
    """
    exact = torch.from_numpy(values.astype(np.float64) / plan.spacing)
    whole, stream = rounded(Stream(key, "rounding"), exact, plan.norm), Stream(key, "noise")
    if plan.mechanism == "skellam":
        noise = skellam(stream, plan.sigma**2, whole.shape)
    else:
        noise = discrete_gaussian(stream, plan.sigma, whole.shape)
    return whole.add_(noise).numpy().astype(np.int32)
