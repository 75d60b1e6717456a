"""Guiding the Last Layer in Federated Learning with Pre-Trained Models (FedNCM).

Legate, Bernier, Page-Caccia, Oyallon, Belilovsky; NeurIPS 2023; https://arxiv.org/abs/2306.03937;
algorithm 1: the head's weights are the class means, normalised.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

from atoll.aggregators import mean
from atoll.algorithms.heads.prototypes import LOWEST, SCALE, prototypes
from atoll.core import Algorithm, State
from atoll.local.bench import Bench
from atoll.local.statistics import Labelled, class_sums, head_server, head_shapes, head_tree
from atoll.tree import Tree

__all__ = ["class_means", "fedncm"]


def fedncm(bench: Bench, labelled: Labelled, *, scale: float = SCALE) -> Algorithm:
    """One exchange; `scale` makes cosines into logits that a softmax can train on."""
    assert bench.head is not None
    head, shapes = bench.head, head_shapes(bench)

    def solve(state: State, sums: Tree) -> State:
        weight = scale * class_means(sums["sum"][:, : shapes.width])
        bias = None
        if shapes.bias:
            bias = weight.new_zeros(shapes.labels).masked_fill(sums["count"] == 0, LOWEST)
        held = prototypes(head, sums, shapes)
        return {"head": head_tree(head, weight, bias), "prototypes": held}

    work = class_sums("fedncm", labelled, shapes, gram=False)
    server = head_server("fedncm", solve=solve)
    return Algorithm("fedncm", work, (), mean(), server, kind="exchange")


def class_means(sums: Tensor) -> Tensor:
    """Normalised class means [C, d]; a mean's length drops out, so sums will do."""
    return normalize(sums.double(), dim=1)
