"""A clipping bound that follows a quantile of the updates' norms, told with noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from atoll.core import Channel, Context, Payload, Server, State
from atoll.noise import Stream, standard_normal
from atoll.servers.noised import Noise

__all__ = ["BELOW", "CLIP", "CLIPS", "NORM", "Following", "following_quantile", "split_noise"]

CLIP, BELOW = "clip", "below"
"""The part and channel with the bound, and the channel that tells who was below it."""
NORM = "norm"
CLIPS = "clips"
"""The part with the bounds of all rounds so far, [rounds]: clients were told each of them."""


@dataclass(frozen=True)
class Following:
    """How the bound moves: to where a share `quantile` of the norms is below it, from `smallest`
    to `largest`.

    count_noise: standard deviation of the noise on Σ (b_k − ½); read where noise is added.
    """

    initial: float
    smallest: float
    largest: float
    quantile: float
    learning_rate: float
    count_noise: Callable[[], float]


def following_quantile(inner: Server, following: Following, noise: Noise) -> Server:
    """The server `inner`, noised, whose clients are sent the bound to cut to: `CLIP`.

    b̃ = ½ + (Σ (b_k − ½) + N(0, σ_b²)) / (q·N), with b_k = 1 where ‖x_k‖ ≤ C; then
    C ← C · exp(−η · (b̃ − γ)).
    Source: Andrew, Thakkar, McMahan, Ramaswamy, Differentially Private Learning with Adaptive
    Clipping (NeurIPS 2021, arXiv 1905.03871), Algorithm 1.
    """

    def init(state: State) -> State:
        start = {NORM: torch.tensor(following.initial, dtype=torch.float64)}
        past = {NORM: torch.zeros(0, dtype=torch.float64)}
        return {CLIP: start, CLIPS: past, **inner.init(state)}

    def broadcast(state: State, client: str) -> Payload:
        return {**inner.broadcast(state, client), CLIP: Channel(state[CLIP], "none")}

    def apply(context: Context, state: State, aggregate: Payload) -> State:
        (total,) = aggregate[BELOW].tree.values()
        drawn = standard_normal(Stream(noise.key(context.exchange), "noise", CLIP), ())
        count = float(total) + round(float(drawn) * following.count_noise() * _FINE) / _FINE
        share = 0.5 + count / noise.denominator
        step = -following.learning_rate * (share - following.quantile)
        # Noise on the count may ask for more than a float holds, or less, and gets an end.
        moved = state[CLIP][NORM] * math.exp(min(step, 100.0))
        norm = moved.clamp(following.smallest, following.largest)
        past = torch.cat([state[CLIPS][NORM], state[CLIP][NORM].reshape(1)])
        after = inner.apply(context, state, aggregate)
        return {**after, CLIP: {NORM: norm}, CLIPS: {NORM: past}}

    names = (*inner.noised, BELOW)
    return replace(inner, init=init, broadcast=broadcast, apply=apply, noised=names)


_FINE = 1024
"""The noise on the count is a multiple of 1 / 1024, as the count is."""


def split_noise(noise_multiplier: float, count_noise: float) -> float:
    """z_Δ, with which update and count together are one release with `noise_multiplier` z.

    z_Δ = (z⁻² − (2 σ_b)⁻²)^(−½): one client moves Σ (b_k − ½) by ½ at most. NaN where the count
    alone would spend it all.   Source: Andrew et al., Theorem 1.
    """
    if noise_multiplier == 0:
        return 0.0
    rest = noise_multiplier**-2 - (2 * count_noise) ** -2
    return rest**-0.5 if rest > 0 else math.nan
