"""What local training pulls features towards while the head is held: prototypes of every class.

All clients' class means are known from the sums, so each client trains against the same fixed
softmax over all classes, those that it lacks included: nothing pulls clients apart. Fixed
classifiers in federated learning: Oh, Kim, Yun, FedBABU; ICLR 2022; https://arxiv.org/abs/2106.06042.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from atoll.aggregators import mean
from atoll.core import Algorithm, Request, State
from atoll.local.bench import Bench
from atoll.local.statistics import Shapes, head_server, head_shapes, head_tree, label_work
from atoll.models.classification import label_counts
from atoll.tree import Tree

__all__ = ["SCALE", "class_counts", "class_weights", "prototypes"]

SCALE = 16.0
"""Turns cosines into logits; 16 is a softmax that is neither flat nor saturated."""


def prototypes(head: str, sums: Tree, shapes: Shapes) -> Tree:
    """A head of class means, centred where a bias can carry the centre: W_c = 16/ρ·(m_c − μ)/‖·‖.

    sums: of each class Σ x [C, d] and the count [C], and `square` Σ ‖x‖². ρ, the features' length,
    keeps logits between −16 and 16 whatever the model's scale. A class without rows gets the lowest
    score.
    """
    total, counts = sums["sum"][:, : shapes.width].double(), sums["count"].double()
    means = total / counts.clamp(min=1).unsqueeze(1)
    scale = SCALE / (float(sums["square"]) / float(counts.sum())) ** 0.5
    if not shapes.bias:
        return head_tree(head, scale * normalize(means, dim=1), None)
    centre = total.sum(0) / counts.sum()
    weight = scale * normalize(means - centre, dim=1)
    bias = torch.where(counts > 0, -(weight @ centre), torch.full_like(counts, -1e4))
    return head_tree(head, weight, bias)


def class_weights(counts: Tensor, balance: float) -> Tensor:
    """(n / (K·n_c))^balance for each of the K classes that have rows, 0 for the others."""
    present = counts > 0
    share = counts.sum() / (present.sum() * counts.clamp(min=1))
    return torch.where(present, share**balance, torch.zeros_like(share))


def class_counts(bench: Bench) -> Algorithm:
    """One small exchange: how many rows each label has in the whole federation."""
    labels = head_shapes(bench).labels

    def count(request: Request) -> Tree:
        rows = bench.examples(request.context.client, "train")
        return {"count": label_counts(rows, labels)}

    def keep(state: State, sums: Tree) -> State:
        return {"counts": sums}

    work = label_work("counts", shape={"count": torch.zeros(labels)}, count=count)
    server = head_server("counts", solve=keep)
    return Algorithm("counts", work, (), mean(), server, kind="exchange")
