"""Exact sums: the order of replies, and rounding, say nothing."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from atoll.aggregators.averaging import mean
from atoll.core import Aggregator, Channel, Payload, State
from atoll.errors import ConfigError

__all__ = ["on_grid"]


def on_grid(*, step: float) -> Aggregator:
    """Σ x_k, each x_k first cut towards zero to a multiple of `step`, which lengthens none.

    Weights are not read, and nothing is divided by who answered: a client that is absent adds zero.
    Sums of multiples of a power of 2 are exact in float64, so that the sum with a client and the
    one without differ by what the client sent, and by nothing else (Mironov, CCS 2012; Casacuberta
    et al., CCS 2022, arXiv 2207.10635).
    """
    exponent, inner = torch.frexp(torch.tensor(step, dtype=torch.float64))[0].item(), mean()
    if exponent != 0.5:
        raise ConfigError(f"aggregator 'on_grid': step is {step:g}; give a power of 2")

    def init(like: Payload) -> State:
        return inner.init({name: _summed(one, torch.float64) for name, one in like.items()})

    def add(state: State, payload: Payload) -> State:
        cut = {
            name: one.with_tree({key: _cut(value, step) for key, value in one.tree.items()})
            for name, one in payload.items()
        }
        return inner.add(state, {name: _summed(one) for name, one in cut.items()})

    return Aggregator("on_grid", init, add, inner.finish, weighted=False, undivided=True)


def _cut(value: Tensor, step: float) -> Tensor:
    if not value.is_floating_point():
        return value
    return value.double().div_(step).trunc_().mul_(step)


def _summed(channel: Channel, dtype: torch.dtype | None = None) -> Channel:
    """The channel as a sum; with `dtype`, the shapes of one whose floating values have it."""
    tree = channel.tree
    if dtype is not None:
        tree = {
            key: value.to(dtype) if value.is_floating_point() else value
            for key, value in tree.items()
        }
    kept = channel.reduce == "none"
    return replace(channel, tree=tree, reduce="none" if kept else "sum", weight=None)
