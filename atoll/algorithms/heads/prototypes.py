"""What local training pulls features towards while the head is held: prototypes of every class.

All clients' class means are known from the sums, so each client trains against the same fixed
softmax over all classes, those that it lacks included: nothing pulls clients apart. Fixed
classifiers in federated learning: Oh, Kim, Yun, FedBABU; ICLR 2022; https://arxiv.org/abs/2106.06042.
"""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from atoll.local.statistics import Shapes, head_tree
from atoll.tree import Tree

__all__ = ["LOWEST", "SCALE", "prototypes"]

SCALE = 16.0
"""Turns cosines into logits; 16 is a softmax that is neither flat nor saturated."""

LOWEST = -1e9
"""The bias of a class that no client has rows of: below every score, and still a number."""


def prototypes(head: str, sums: Tree, shapes: Shapes) -> Tree:
    """A head of class means, centred where a bias can carry the centre: W_c = 16/ρ·(m_c − μ)/‖·‖.

    sums: of each class Σ x [C, d] and the count [C], and `square` Σ ‖x‖². ρ, the features' length,
    keeps logits between −16 and 16 whatever the model's scale. A class without rows gets the lowest
    score where there is a bias, and 0 where there is none.
    """
    total, counts = sums["sum"][:, : shapes.width].double(), sums["count"].double()
    means = total / counts.clamp(min=1).unsqueeze(1)
    scale = SCALE / (float(sums["square"]) / float(counts.sum())) ** 0.5
    if not shapes.bias:
        return head_tree(head, scale * normalize(means, dim=1), None)
    centre = total.sum(0) / counts.sum()
    weight = scale * normalize(means - centre, dim=1)
    bias = torch.where(counts > 0, -(weight @ centre), torch.full_like(counts, LOWEST))
    return head_tree(head, weight, bias)
