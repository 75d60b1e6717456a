"""Adaptive Federated Optimization.

Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan; ICLR 2021;
https://arxiv.org/abs/2003.00295; algorithm 2.
"""

from __future__ import annotations

from typing import Literal

from atoll import servers
from atoll.aggregators import mean
from atoll.core import Algorithm
from atoll.errors import ConfigError
from atoll.local.bench import Bench
from atoll.local.work import local_training
from atoll.stages import by_examples

__all__ = ["EXAMPLES", "fedopt"]

EXAMPLES: tuple[dict[str, object], ...] = (
    {},
    {"optimizer": "yogi", "beta2": 0.9},
    {"optimizer": "adagrad", "beta1": 0.5, "tau": 0.01},
)


def fedopt(
    bench: Bench,
    *,
    optimizer: Literal["adam", "yogi", "adagrad"] = "adam",
    learning_rate: float = 0.001,
    beta1: float | None = None,
    beta2: float | None = None,
    tau: float = 0.001,
) -> Algorithm:
    """FedAvg whose server takes the mean change as a gradient for an adaptive optimiser.

    beta1, beta2: None is 0.9 and 0.99, and no momentum for adagrad.

    Raises:
        ConfigError: for a beta2 of adagrad, which has none, and for numbers out of range.
    """
    if optimizer == "adagrad" and beta2 is not None:
        raise ConfigError(
            f"fedopt: beta2 is {beta2}, but adagrad adds up all squares and has none; leave it out"
        )
    server = {"adam": servers.adam, "yogi": servers.yogi, "adagrad": servers.adagrad}[optimizer]
    betas = {name: value for name, value in (("beta1", beta1), ("beta2", beta2))
             if value is not None}  # fmt: skip
    made = server(learning_rate=learning_rate, tau=tau, **betas)
    return Algorithm("fedopt", local_training(bench), (by_examples(),), mean(), made)
