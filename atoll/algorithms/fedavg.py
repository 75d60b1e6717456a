"""Communication-Efficient Learning of Deep Networks from Decentralized Data.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas; AISTATS 2017; https://arxiv.org/abs/1602.05629;
algorithm 1. Over a LoRA tree this is FedIT (Zhang et al. 2024, https://arxiv.org/abs/2305.05644).
"""

from __future__ import annotations

from atoll.aggregators import mean
from atoll.core import Algorithm
from atoll.local.bench import Bench
from atoll.local.work import local_training
from atoll.servers import average
from atoll.stages import by_examples

__all__ = ["EXAMPLES", "fedavg"]

EXAMPLES: tuple[dict[str, object], ...] = ({},)


def fedavg(bench: Bench) -> Algorithm:
    """Clients train; the server takes the mean of what they changed, weighted by their rows."""
    return Algorithm("fedavg", local_training(bench), (by_examples(),), mean(), average())
