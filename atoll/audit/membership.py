"""Loss-threshold membership inference: rows that a model was trained on have lower losses.

Yeom, Giacomelli, Fredrikson, Jha, Privacy Risk in Machine Learning (CSF 2018, arXiv 1709.01604),
section 3.2. Reported as in Carlini et al., Membership Inference Attacks From First Principles
(IEEE S&P 2022, arXiv 2112.03570): the true-positive rate where few are accused wrongly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from atoll.audit.ranking import Told, auc, bootstrapped, tpr_at
from atoll.local.bench import Bench
from atoll.local.infer import forward_batches
from atoll.models.objective import Example
from atoll.tree import Tree

__all__ = ["FPR", "Membership", "drawn", "losses_of", "membership"]

FPR = 0.01
NEEDED = 100
"""Rows of others below which nobody stands for one in a hundred."""


@dataclass(frozen=True)
class Membership:
    """How well losses tell training rows from held-out rows; tpr at 1 % false positives."""

    auc: Told
    tpr: Told | None
    members: int
    others: int


def losses_of(bench: Bench, values: Tree, examples: Sequence[Example]) -> NDArray[np.float64]:
    """The loss of each row, for one prediction of it."""
    found = np.zeros(len(examples))
    for rows, batch, outputs in forward_batches(bench, values, examples):
        found[rows] = bench.objective.losses(outputs, batch, {}).double().cpu().numpy()
    counts = [max(bench.objective.count(example), 1) for example in examples]
    each: NDArray[np.float64] = found / np.asarray(counts)
    return each


def membership(
    members: NDArray[np.float64], others: NDArray[np.float64], generator: np.random.Generator
) -> Membership:
    """From the losses of both."""
    tpr = None
    if len(others) >= NEEDED:
        tpr = bootstrapped(partial(tpr_at, fpr=FPR), -members, -others, generator)
    told = bootstrapped(auc, -members, -others, generator)
    return Membership(told, tpr, len(members), len(others))


def drawn(rows: Sequence[Example], most: int, generator: np.random.Generator) -> list[Example]:
    """At most so many rows, at random: files are often in an order that losses follow."""
    return [rows[place] for place in generator.permutation(len(rows))[:most]]
