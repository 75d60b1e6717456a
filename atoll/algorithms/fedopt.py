"""Adaptive Federated Optimization.

Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan; ICLR 2021;
https://arxiv.org/abs/2003.00295; algorithm 2.
"""

from __future__ import annotations

from typing import Literal

from atoll import servers
from atoll.aggregators import mean
from atoll.core import Algorithm
from atoll.local.bench import Bench
from atoll.local.work import local_training
from atoll.stages import by_examples

__all__ = ["EXAMPLES", "fedopt"]

EXAMPLES: tuple[dict[str, object], ...] = (
    {},
    {"optimizer": "yogi"},
    {"optimizer": "adagrad", "tau": 0.01},
)


def fedopt(
    bench: Bench,
    *,
    optimizer: Literal["adam", "yogi", "adagrad"] = "adam",
    learning_rate: float = 0.001,
    tau: float = 0.001,
) -> Algorithm:
    """FedAvg whose server takes the mean change as a gradient for an adaptive optimiser."""
    server = {"adam": servers.adam, "yogi": servers.yogi, "adagrad": servers.adagrad}[optimizer]
    stages = (by_examples(),)
    return Algorithm(
        "fedopt",
        local_training(bench),
        stages,
        mean(),
        server(learning_rate=learning_rate, tau=tau),
    )
