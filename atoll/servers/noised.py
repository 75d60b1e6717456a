"""Noise on what clients sent together: central differential privacy of one client's share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from atoll.core import Channel, Context, Payload, Server, State, Tree
from atoll.noise import Stream, standard_normal

__all__ = ["Noise", "noised"]

UPDATE = "update"


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of one release.

    deviation: state -> its standard deviation, on the sum.   denominator: what the sum is divided
    by, which no client moves: the expected size of a cohort.   step: the grid of sum and noise.
    key: exchange -> the secret of its release.
    """

    deviation: Callable[[State], float]
    denominator: float
    step: float
    key: Callable[[int], bytes]


def noised(inner: Server, noise: Noise) -> Server:
    """The server `inner`, which is moved by (Σ x_k + N(0, σ²)) / (q·N) and by nothing else.

    The noise is rounded to the grid that the sum is on: a rounding of the sum with exact noise,
    which costs no privacy. An empty cohort is a release of noise alone.
    Source: McMahan, Ramage, Talwar, Zhang, Learning Differentially Private Recurrent Language
    Models (ICLR 2018, arXiv 1710.06963), Algorithm 1 with the estimator f̃_f.
    """

    def apply(context: Context, state: State, aggregate: Payload) -> State:
        deviation = noise.deviation(state)
        total = aggregate[UPDATE].tree
        update: Tree = {}
        for name in sorted(total):
            drawn = _drawn(context, name, total[name], deviation, noise)
            update[name] = drawn.add_(total[name]).div_(noise.denominator).float()
        return inner.apply(context, state, {**aggregate, UPDATE: Channel(update)})

    return replace(inner, name=f"noised {inner.name}", apply=apply, noised=(UPDATE,))


def _drawn(context: Context, name: str, like: Tensor, deviation: float, noise: Noise) -> Tensor:
    stream = Stream(noise.key(context.exchange), "noise", name)
    values = standard_normal(stream, like.shape).mul_(deviation / noise.step)
    return values.round_().mul_(noise.step)
