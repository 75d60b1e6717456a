"""Robust rules that look at each coordinate of `update` over all clients.

They need every update at once, ignore weights, and treat every other channel as a mean does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from atoll.aggregators.averaging import mean
from atoll.core import Aggregator, Channel, Payload, State
from atoll.errors import ConfigError

__all__ = ["median", "trimmed_mean"]

CHANNEL = "update"
# Parts of the state: the zeros of an empty cohort, and one part per reply behind this prefix.
ZEROS = "update"
REPLY = "update:"


def median() -> Aggregator:
    """The median of each coordinate; the mean of the two middle ones when their number is even.

    Source: Yin, Chen, Kannan, Bartlett, Byzantine-Robust Distributed Learning: Towards Optimal
    Statistical Rates (ICML 2018, arXiv 1803.01498), Definition 1 and Algorithm 1, option I.
    """

    def combine(ordered: Tensor) -> Tensor:
        count = ordered.shape[0]
        high = ordered[count // 2]
        # Halved first: the sum of two large values is infinite.
        return high if count % 2 else ordered[count // 2 - 1] / 2 + high / 2

    return _coordinatewise("median", combine)


def trimmed_mean(*, fraction: float) -> Aggregator:
    """The mean of each coordinate without its floor(fraction · n) smallest and as many largest.

    Source: Yin et al. (as `median`), Definition 2 and Algorithm 1, option II.
    """
    if not 0 <= fraction < 0.5:
        raise ConfigError(
            f"aggregator 'trimmed_mean': fraction is {fraction}; give a number from 0 to below "
            "0.5, since it is dropped at both ends"
        )

    def combine(ordered: Tensor) -> Tensor:
        count = ordered.shape[0]
        # 0.29 · 100 is a little below 29 in floating point; one value always is left.
        drop = min(int(fraction * count + 1e-9), (count - 1) // 2)
        # In float64, where the sum of large values does not overflow.
        return ordered[drop : count - drop].mean(dim=0, dtype=torch.float64).to(ordered.dtype)

    return _coordinatewise("trimmed_mean", combine)


def _coordinatewise(name: str, combine: Callable[[Tensor], Tensor]) -> Aggregator:
    """combine: [n, …] ordered along n -> […]."""
    others = mean()

    def init(like: Payload) -> State:
        zeros = {
            key: torch.zeros(value.shape, dtype=torch.promote_types(value.dtype, torch.float32))
            for key, value in like[CHANNEL].tree.items()
        }
        return {**others.init(_without(like)), ZEROS: zeros}

    def add(state: State, payload: Payload) -> State:
        replies = {part: tree for part, tree in state.items() if part.startswith(REPLY)}
        rest = {p: t for p, t in state.items() if p != ZEROS and p not in replies}
        new = {f"{REPLY}{len(replies)}": payload[CHANNEL].tree}
        return {**others.add(rest, _without(payload)), ZEROS: state[ZEROS], **replies, **new}

    def finish(state: State) -> Payload:
        replies = {part: tree for part, tree in state.items() if part.startswith(REPLY)}
        rest = {p: t for p, t in state.items() if p != ZEROS and p not in replies}
        update = {
            key: combine(_ordered([tree[key].to(zeros.dtype) for tree in replies.values()]))
            if replies
            else zeros.clone()
            for key, zeros in state[ZEROS].items()
        }
        return {CHANNEL: Channel(update), **others.finish(rest)}

    return Aggregator(name, init, add, finish, linear=False, weighted=False)


def _ordered(values: list[Tensor]) -> Tensor:
    # Over a leading dimension numpy sorts in a sixteenth of torch's time.
    return torch.from_numpy(np.sort(torch.stack(values).numpy(), axis=0))


def _without(payload: Payload) -> Payload:
    return {name: channel for name, channel in payload.items() if name != CHANNEL}
