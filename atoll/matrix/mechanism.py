"""Correlated noise, round by round, in as many trees as the strategy has buffers.

    noise_t = z_t − Σⱼ scaleⱼ · bufferⱼ              bufferⱼ ← decayⱼ · bufferⱼ + noise_t

Source: Dvijotham et al. (FOCS 2024, arXiv 2404.16706), Algorithm 1, and McMahan et al. (EMNLP 2024,
arXiv 2408.08868), Algorithm 3, for the inverse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atoll.errors import PrivacyError
from atoll.matrix.participation import Participation
from atoll.matrix.tables import Strategy, strategy
from atoll.tree import Tree

__all__ = ["ROUND", "Mechanism", "mechanism"]

# No torch module puts a colon into the name of a parameter.
ROUND = ":round"
Draw = Callable[[Sequence[int]], Tensor]
"""Independent values of N(0, 1), from a secret."""


@dataclass(frozen=True)
class Mechanism:
    """Noise for the rounds of one planned run.

    init: a model's shapes -> the state before the first round.
    noise: (state, draw) -> this round's noise, and the state before the next. Multiplied by
        noise multiplier · clipping norm it is added to the round's sum; all rounds together are
        then one Gaussian release with that noise multiplier.

    A state holds, under each name, a tensor with a leading dimension of buffers, and the number of
    rounds that are over. Whoever reads it can take noise off what was released: it is as secret as
    the key of the noise. A round that was released may be asked again only with the same draws: two
    samples of one round are two releases, and nothing here accounts for the second.
    """

    strategy: Strategy
    init: Callable[[Tree], Tree]
    noise: Callable[[Tree, Draw], tuple[Tree, Tree]]


def mechanism(participation: Participation, *, dtype: torch.dtype = torch.float64) -> Mechanism:
    """The best known BLT for a planned run; `dtype` is that of state and noise.

    Raises:
        ConfigError: when no table serves the run.
    """
    chosen = strategy(participation)
    terms = list(zip(chosen.blt.decay, chosen.blt.scale, strict=True))

    def init(like: Tree) -> Tree:
        state: Tree = {ROUND: torch.zeros((), dtype=torch.int64)}
        for name, value in like.items():
            state[name] = torch.zeros((len(terms), *value.shape), dtype=dtype)
        return state

    def noise(state: Tree, draw: Draw) -> tuple[Tree, Tree]:
        over = int(state[ROUND])
        if over >= participation.rounds:
            raise PrivacyError(
                f"round {over + 1} of a run whose noise was planned for {participation.rounds}; "
                "start a new run, whose budget is its own"
            )
        made: Tree = {}
        after: Tree = {ROUND: state[ROUND] + 1}
        # Sorted, because a state that came through a file has its names in another order.
        for name in sorted(state.keys() - {ROUND}):
            fresh = draw(state[name].shape[1:]).to(dtype, copy=True)
            for buffer, (_, scale) in zip(state[name], terms, strict=True):
                fresh.sub_(buffer, alpha=scale)
            after[name] = torch.empty_like(state[name])
            for buffer, kept, (decay, _) in zip(state[name], after[name], terms, strict=True):
                torch.add(fresh, buffer, alpha=decay, out=kept)
            made[name] = fresh.mul_(chosen.sensitivity)
        return made, after

    return Mechanism(chosen, init, noise)
