"""Weighted means and sums, one reply at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from atoll.core import Aggregator, Channel, Payload, State, Tree

__all__ = ["mean"]

# The state holds one part of running sums per channel, and the divisors of the means.
SUM = "sum:"
DIVISORS = "divisors"


def mean() -> Aggregator:
    """Σ w_k x_k / Σ w_k for means, Σ x_k for sums; channels that are not reduced are left out.

    Memory does not grow with the cohort: replies are added in place. Sums are kept in float32 or
    wider, and what is aggregated keeps their dtype; an empty cohort gives zeros.
    """
    return Aggregator("mean", _init, _add, _finish)


def _init(like: Payload) -> State:
    reduced = {name: channel for name, channel in like.items() if channel.reduce != "none"}
    state = {
        f"{SUM}{name}": {key: _zeros(value, channel.reduce) for key, value in channel.tree.items()}
        for name, channel in reduced.items()
    }
    means = [name for name, channel in reduced.items() if channel.reduce == "mean"]
    return {**state, DIVISORS: {name: torch.zeros((), dtype=torch.float64) for name in means}}


def _zeros(like: Tensor, reduce: str) -> Tensor:
    whole = reduce == "sum" and not like.is_floating_point()
    dtype = torch.int64 if whole else torch.promote_types(like.dtype, torch.float32)
    # One zero for all: the values take memory when the first reply brings some.
    return torch.zeros((), dtype=dtype).expand(like.shape)


def _add(state: State, payload: Payload) -> State:
    divisors = dict(state[DIVISORS])
    folded: State = {}
    for name, channel in payload.items():
        if channel.reduce == "none":
            continue
        weight = 1.0
        if channel.reduce == "mean":
            weight = _weight(payload, channel)
            divisors[name] = divisors[name] + weight
        folded[f"{SUM}{name}"] = _plus(state[f"{SUM}{name}"], channel.tree, weight)
    assert folded.keys() | {DIVISORS} == state.keys(), "a reply has other channels than the fold"
    return {**folded, DIVISORS: divisors}


def _weight(payload: Payload, channel: Channel) -> float:
    if channel.weight is None:
        return 1.0
    (value,) = payload[channel.weight].tree.values()
    return float(value)


def _plus(total: Tree, tree: Tree, weight: float) -> Tree:
    # A weight of 1 must stay an integer where the tensors are.
    alpha = 1 if weight == 1 else weight
    return {name: _added(value, tree[name], alpha) for name, value in total.items()}


def _added(total: Tensor, value: Tensor, alpha: float) -> Tensor:
    add = torch.add if _single(total) else Tensor.add_
    return add(total, value, alpha=alpha)


def _single(total: Tensor) -> bool:
    """Whether one number is all that is in memory: it may be the zero that stands for all."""
    return total.untyped_storage().nbytes() <= total.element_size()


def _finish(state: State) -> Payload:
    divisors = state[DIVISORS]
    result: Payload = {}
    for part, total in state.items():
        name = part.removeprefix(SUM)
        if part == DIVISORS:
            continue
        if name in divisors:
            divisor = float(divisors[name]) or 1.0
            result[name] = Channel({key: _divided(value, divisor) for key, value in total.items()})
        else:
            result[name] = Channel(dict(total), reduce="sum")
    return result


def _divided(total: Tensor, divisor: float) -> Tensor:
    return total / divisor if _single(total) else total.div_(divisor)
