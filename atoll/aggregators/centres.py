"""Rules that look for a centre of the updates, where those far away pull no more than the near."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from atoll.aggregators.distances import distances, scores, to_blend, weighing
from atoll.aggregators.gathered import robust, whole
from atoll.core import Aggregator
from atoll.errors import ConfigError

__all__ = ["centred_clipping", "geometric_median"]

STILL = 1e-13
"""A change of all weights below which further iterations change nothing."""


def geometric_median(*, smoothing: float = 1e-6, iterations: int = 100) -> Aggregator:
    """The point whose distances to all updates add up to the least, by smoothed Weiszfeld steps.

    Each step is the mean weighted by 1 / max(smoothing, distance); fewer than half of the updates
    cannot carry it away.
    Source: Pillutla, Kakade, Harchaoui, Robust Aggregation for Federated Learning (IEEE
    Transactions on Signal Processing 2022, arXiv 1912.13445), Algorithm 2.
    """
    _above_zero(smoothing, name="smoothing", aggregator="geometric_median")
    whole(iterations, name="iterations", aggregator="geometric_median", least=1)

    def weigh(inner: Tensor) -> Tensor:
        weights = _majority(inner)
        for _ in range(iterations):
            near = 1 / to_blend(inner, weights).clamp(min=smoothing)
            before, weights = weights, near / near.sum()
            if float((weights - before).abs().max()) < STILL:
                break
        return weights

    return robust("geometric_median", weighing(weigh))


def centred_clipping(*, radius: float | None = None, iterations: int = 3) -> Aggregator:
    """v ← v + mean of (x_i − v)·min(1, radius / ‖x_i − v‖), from the mean of the closest majority.

    radius: None takes the median of the distances to where it starts.
    So f of n updates move each step by at most radius · f / n. The paper starts from the last
    round's result, which clients with momentum make a good centre; without, updates differ more
    from round to round than within one, and a start in this round's majority holds from the first.
    Source: Karimireddy, He, Jaggi, Learning from History for Byzantine Robust Optimization (ICML
    2021, arXiv 2012.10333), section 5, CClip.
    """
    if radius is not None:
        _above_zero(radius, name="radius", aggregator="centred_clipping")
    whole(iterations, name="iterations", aggregator="centred_clipping", least=1)

    def weigh(inner: Tensor) -> Tensor:
        weights = _majority(inner)
        most = float(to_blend(inner, weights).median()) if radius is None else radius
        for _ in range(iterations):
            away = to_blend(inner, weights)
            moves = torch.where(away > most, most / away, 1.0)
            weights = weights * (1 - moves.mean()) + moves / len(moves)
        return weights

    return robust("centred_clipping", weighing(weigh))


def _majority(inner: Tensor) -> Tensor:
    """Weights of the mean of more than half of the updates, that lie closest together.

    One of them is honest where fewer than half are not, so no other can be far from the honest.
    """
    squared, half = distances(inner), len(inner) // 2
    middle = int(scores(squared, half).argmin())
    weights = torch.zeros(len(inner), dtype=torch.float64)
    weights[squared[middle].argsort(stable=True)[: half + 1]] = 1 / (half + 1)
    return weights


def _above_zero(value: float, *, name: str, aggregator: str) -> None:
    if not 0 < value < math.inf:
        raise ConfigError(f"aggregator '{aggregator}': {name} is {value}; give a number above 0")
