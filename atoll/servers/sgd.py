"""Plain and accelerated steps along the aggregated update."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from torch import Tensor

from atoll.core import Context, Payload, Server, State
from atoll.errors import ConfigError
from atoll.servers.values import (
    MOMENTS,
    above_zero,
    added,
    broadcast,
    from_zero_below_one,
    moved,
    scaled,
    with_part,
)

__all__ = ["average", "momentum"]


def average(*, learning_rate: float = 1.0) -> Server:
    """w ← w + η·Δ; with η = 1 the average of the clients' values.

    Source: McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized
    Data (AISTATS 2017, arXiv 1602.05629), Algorithm 1.
    """
    above_zero(learning_rate, name="learning_rate", server="average")

    def init(state: State) -> State:
        return state

    def apply(context: Context, state: State, aggregate: Payload) -> State:
        return moved(
            state, aggregate["update"].tree, lambda name, delta: scaled(delta, learning_rate)
        )

    def response(rounds: int) -> Sequence[float]:
        return [learning_rate] * rounds

    return Server("average", init, broadcast, apply, response=response)


def momentum(
    *, learning_rate: float = 1.0, momentum: float = 0.9, nesterov: bool = False
) -> Server:
    """m ← μ·m + Δ; w ← w + η·m, or with Nesterov's look-ahead w ← w + η·(Δ + μ·m).

    The form of torch.optim.SGD without dampening. Names outside the update keep their m.
    Source: Hsu, Qi, Brown, Measuring the Effects of Non-Identical Data Distribution for Federated
    Visual Classification (2019, arXiv 1909.06335), section 4.3, FedAvgM.
    """
    above_zero(learning_rate, name="learning_rate", server="momentum")
    from_zero_below_one(momentum, name="momentum", server="momentum")
    if nesterov and momentum == 0:
        raise ConfigError(
            "server 'momentum': nesterov looks ahead along the momentum, which is 0; "
            "give a momentum above 0"
        )

    def init(state: State) -> State:
        return with_part(state, MOMENTS)

    def apply(context: Context, state: State, aggregate: Payload) -> State:
        # A head may join between two rounds.
        state, update = init(state), aggregate["update"].tree
        kept = state[MOMENTS]
        ahead = {name: delta.clone() for name, delta in update.items()} if nesterov else {}
        new = {name: added(delta, momentum * kept[name]) for name, delta in update.items()}

        def step(name: str, delta: Tensor) -> Tensor:
            way = added(ahead[name], momentum * new[name]) if nesterov else new[name]
            return learning_rate * way

        return {**moved(state, update, step), MOMENTS: {**kept, **new}}

    def response(rounds: int) -> Sequence[float]:
        # Of a step in the first round and none after it: m = 1, μ, μ², …
        moments = [momentum**age for age in range(rounds)]
        steps = [momentum * m + (age == 0) for age, m in enumerate(moments)]
        return [learning_rate * one for one in accumulate(steps if nesterov else moments)]

    return Server("momentum", init, broadcast, apply, response=response)
