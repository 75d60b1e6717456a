"""Federated Optimization in Heterogeneous Networks.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith; MLSys 2020; https://arxiv.org/abs/1812.06127;
algorithm 2, eq. 2.
"""

from __future__ import annotations

from atoll.aggregators import mean
from atoll.core import Algorithm
from atoll.errors import ConfigError
from atoll.local.bench import Bench
from atoll.local.train import LocalRule
from atoll.local.work import local_training
from atoll.servers import average
from atoll.stages import by_examples

__all__ = ["EXAMPLES", "fedprox"]

EXAMPLES: tuple[dict[str, object], ...] = ({}, {"mu": 0.1})


def fedprox(bench: Bench, *, mu: float = 0.01) -> Algorithm:
    """FedAvg whose local loss holds (mu/2)·‖w − w_broadcast‖².

    Raises:
        ConfigError: for a negative mu.
    """
    if mu < 0:
        raise ConfigError(f"fedprox: mu is {mu}; it must be 0 or more")
    work = local_training(bench, rule=LocalRule(proximal=mu))
    return Algorithm("fedprox", work, (by_examples(),), mean(), average())
