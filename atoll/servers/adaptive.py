"""Server optimisers with a step size for each coordinate.

Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan, Adaptive Federated Optimization
(ICLR 2021, arXiv 2003.00295), Algorithm 2:

    m ← β1·m + (1 − β1)·Δ
    v ← v + Δ²                              adagrad
        v − (1 − β2)·Δ²·sign(v − Δ²)        yogi
        β2·v + (1 − β2)·Δ²                  adam
    w ← w + η·m / (√v + τ)

As there, m starts at 0, v starts at τ², and neither is corrected for bias.
Names outside the update keep their w, m and v.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from atoll.core import Context, Payload, Server, State
from atoll.servers.values import (
    MOMENTS,
    SQUARES,
    above_zero,
    added,
    broadcast,
    from_zero_below_one,
    moved,
    scaled,
    with_part,
)

__all__ = ["adagrad", "adam", "yogi"]


def adagrad(*, learning_rate: float = 0.1, beta1: float = 0.0, tau: float = 1e-3) -> Server:
    """FedAdagrad: v is the sum of all squares."""

    def second(v: Tensor, square: Tensor) -> Tensor:
        return v + square

    return _adaptive("adagrad", second, learning_rate=learning_rate, beta1=beta1, tau=tau)


def adam(
    *, learning_rate: float = 0.1, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3
) -> Server:
    """FedAdam: v is a moving average of squares."""
    from_zero_below_one(beta2, name="beta2", server="adam")

    def second(v: Tensor, square: Tensor) -> Tensor:
        return beta2 * v + (1 - beta2) * square

    return _adaptive("adam", second, learning_rate=learning_rate, beta1=beta1, tau=tau)


def yogi(
    *, learning_rate: float = 0.1, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3
) -> Server:
    """FedYogi: v moves towards the square by a step that depends on the square alone."""
    from_zero_below_one(beta2, name="beta2", server="yogi")

    def second(v: Tensor, square: Tensor) -> Tensor:
        return v - (1 - beta2) * square * torch.sign(v - square)

    return _adaptive("yogi", second, learning_rate=learning_rate, beta1=beta1, tau=tau)


def _adaptive(
    name: str,
    second: Callable[[Tensor, Tensor], Tensor],
    *,
    learning_rate: float,
    beta1: float,
    tau: float,
) -> Server:
    above_zero(learning_rate, name="learning_rate", server=name)
    above_zero(tau, name="tau", server=name)
    from_zero_below_one(beta1, name="beta1", server=name)

    def init(state: State) -> State:
        return with_part(with_part(state, MOMENTS), SQUARES, fill=tau**2)

    def apply(context: Context, state: State, aggregate: Payload) -> State:
        # A head may join between two rounds.
        state, update = init(state), aggregate["update"].tree
        v = {key: second(state[SQUARES][key], d.square()) for key, d in update.items()}
        m = {
            key: added(scaled(d, 1 - beta1), beta1 * state[MOMENTS][key])
            for key, d in update.items()
        }

        def step(key: str, delta: Tensor) -> Tensor:
            return learning_rate * m[key] / (v[key].sqrt() + tau)

        return {
            **moved(state, update, step),
            MOMENTS: {**state[MOMENTS], **m},
            SQUARES: {**state[SQUARES], **v},
        }

    return Server(name, init, broadcast, apply)
