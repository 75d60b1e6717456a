"""Linear discriminant analysis from sums: the head of a softmax over Gaussian classes.

Hastie, Tibshirani, Friedman; The Elements of Statistical Learning, 2nd ed., eq. 4.10, with the
covariance shrunk towards a multiple of I (eq. 4.14). It needs the sums that ridge regression needs
(XᵀX, class sums, counts), so it is as exact for every split; its logits are log-posteriors, which
local training can take as they are. Global feature statistics for one-shot federated heads: FedCGS,
Guan, Zhou, Gu; AAAI 2025; https://arxiv.org/abs/2503.06962.
"""

from __future__ import annotations

import torch
from torch import Tensor

from atoll.aggregators import mean
from atoll.algorithms.heads.prototypes import LOWEST, prototypes
from atoll.core import Algorithm, State
from atoll.errors import CompositionError
from atoll.local.bench import Bench
from atoll.local.statistics import (
    Labelled,
    class_sums,
    head_server,
    head_shapes,
    head_tree,
    rounding,
    symmetric,
)
from atoll.tree import Tree

__all__ = ["discriminant", "fedlda", "oracle_shrinkage"]


def fedlda(bench: Bench, labelled: Labelled, *, shrinkage: float | None = None) -> Algorithm:
    """One exchange; `shrinkage` null: the oracle approximating one, which needs no more sums.

    Raises:
        CompositionError: when the model's head has no bias.
    """
    assert bench.head is not None
    head, shapes = bench.head, head_shapes(bench)
    if not shapes.bias:
        raise CompositionError(
            f"adapter.head 'lda' needs a bias, which the model's head '{head}' has not; "
            "use ridge, or set model.pooling"
        )

    def solve(state: State, sums: Tree) -> State:
        gram = symmetric(sums["gram"], shapes.columns)[: shapes.width, : shapes.width]
        weight, bias = discriminant(
            gram, sums["sum"][:, : shapes.width].double(), sums["count"].double(),
            shrinkage=shrinkage,
        )  # fmt: skip
        held = prototypes(head, sums, shapes)
        return {"head": head_tree(head, weight, bias), "prototypes": held, "statistics": sums}

    work = class_sums("fedlda", labelled, shapes, gram=True)
    server = head_server("fedlda", solve=solve)
    return Algorithm("fedlda", work, (), mean(), server, kind="exchange")


def discriminant(
    gram: Tensor, sums: Tensor, counts: Tensor, *, shrinkage: float | None
) -> tuple[Tensor, Tensor]:
    """Weight [C, d] and bias [C] from Σ x·xᵀ, class sums [C, d] and counts [C].

    The prior is uniform, which serves sites whose label mix is not the federation's. A class
    without rows gets the lowest possible score. Where the rows of a class do not differ by more
    than rounding, the nearest class mean wins.
    """
    present, total = counts > 0, counts.sum()
    means = sums / counts.clamp(min=1).unsqueeze(1)
    within = (gram - sums.T @ means) / total
    share = oracle_shrinkage(within, float(total)) if shrinkage is None else shrinkage
    identity = torch.eye(len(within), dtype=within.dtype)
    within = (1 - share) * within + share * within.diagonal().mean().clamp(min=0) * identity
    values, vectors = torch.linalg.eigh((within + within.T) / 2)
    scaled = means @ vectors / values.clamp(min=rounding(gram) / float(total))
    weight = scaled @ vectors.T
    bias = -0.5 * (weight * means).sum(1)
    return weight, torch.where(present, bias, torch.full_like(bias, LOWEST))


def oracle_shrinkage(covariance: Tensor, count: float) -> float:
    """The share of a multiple of I (OAS: Chen, Wiesel, Eldar, Hero; IEEE TSP 2010, eq. 23)."""
    size = len(covariance)
    square, trace = float((covariance * covariance).sum()), float(covariance.trace())
    spread = (count + 1) * (square - trace**2 / size)
    return 1.0 if spread <= 0 else min(1.0, (square + trace**2) / spread)
