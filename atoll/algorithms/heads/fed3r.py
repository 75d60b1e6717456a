"""Accelerating Heterogeneous Federated Learning with Closed-form Classifiers (Fed3R).

Fanì, Camoriano, Caputo, Ciccone; ICML 2024; https://arxiv.org/abs/2406.01116; eq. 4:
W* = (Σ x·xᵀ + λ·I)⁻¹ Σ x·yᵀ, exact for every split of the rows, in one exchange. A bias is not
penalised. The penalty is chosen from the same sums by generalised cross-validation (Golub, Heath,
Wahba; Technometrics 1979, eq. 1.4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from atoll.aggregators import mean
from atoll.algorithms.heads.prototypes import prototypes
from atoll.core import Algorithm, State
from atoll.errors import CompositionError
from atoll.local.bench import Bench
from atoll.local.statistics import (
    Labelled,
    Shapes,
    class_sums,
    head_server,
    head_shapes,
    head_tree,
    number_sums,
    rounding,
    symmetric,
)
from atoll.tree import Tree

__all__ = ["PENALTIES", "Regression", "best_penalty", "cross_validated", "fed3r", "regression"]

PENALTIES = tuple(10 ** (step / 2) for step in range(-10, 3))
"""What is tried for λ, in units of the mean square of a feature: Σ ‖x‖² / width."""


def fed3r(
    bench: Bench, labelled: Labelled, *, penalty: float | None = None, scale: float = 10.0
) -> Algorithm:
    """One exchange; `scale` makes the regression's 0 … 1 into logits.

    Where the task's targets are numbers, they are regressed on themselves, and the task says what
    makes its outputs of that.

    penalty: λ; None: the one of `PENALTIES` that cross-validates best.

    Raises:
        CompositionError: when the task's outputs need a bias that the model's head has not.
    """
    assert bench.head is not None
    head, shapes, real = bench.head, head_shapes(bench), bench.objective.real
    factor, middle = (scale, 0.0) if real is None else real
    if middle and not shapes.bias:
        raise CompositionError(
            f"adapter.head 'ridge' needs a bias under this task, which the model's head '{head}' "
            "has not; use train, or set model.pooling"
        )

    def solve(state: State, sums: Tree) -> State:
        found = regression(sums, shapes)
        weight, bias = found.solve(best_penalty(found) if penalty is None else penalty)
        bias = None if bias is None else factor * (bias - middle)
        solved = {"head": head_tree(head, factor * weight, bias), "statistics": sums}
        return solved if real else solved | {"prototypes": prototypes(head, sums, shapes)}

    if real:
        work = number_sums("fed3r", labelled, shapes)
    else:
        work = class_sums("fed3r", labelled, shapes, gram=True)
    return Algorithm("fed3r", work, (), mean(), head_server("fed3r", solve=solve), kind="exchange")


@dataclass(frozen=True)
class Regression:
    """Ridge regression of one-hot labels or numbers, from sums; about the means under a bias.

    gram: Σ x·xᵀ [d, d].   targets: Σ y·xᵀ [C, d].   energy: Σ ‖y‖².   rows: how many.
    centre, shares: the means of x and y, None without a bias.   least: the λ that rounding allows.
    """

    gram: Tensor
    targets: Tensor
    energy: float
    rows: float
    centre: Tensor | None
    shares: Tensor | None
    least: float

    def factor(self, penalty: float) -> Tensor:
        """The Cholesky factor of Σ x·xᵀ + λ·I."""
        weights = torch.full((len(self.gram),), max(penalty, self.least), dtype=self.gram.dtype)
        factor: Tensor = torch.linalg.cholesky(self.gram + torch.diag(weights))
        return factor

    def solve(self, penalty: float) -> tuple[Tensor, Tensor | None]:
        """Weight [C, d] and bias [C] (None without one)."""
        weight = torch.cholesky_solve(self.targets.T, self.factor(penalty)).T
        if self.centre is None or self.shares is None:
            return weight, None
        return weight, self.shares - weight @ self.centre


def regression(sums: Tree, shapes: Shapes) -> Regression:
    """The regression that clients' sums stand for."""
    full, targets = symmetric(sums["gram"], shapes.columns), sums["sum"].double()
    rows, width = float(sums["count"].sum()), shapes.width
    energy = float(sums["energy"]) if "energy" in sums else rows
    gram, least = full[:width, :width], rounding(full[:width, :width])
    if not shapes.bias:
        return Regression(gram, targets, energy, rows, None, None, least)
    centre, shares = full[width, :width] / rows, targets[:, width] / rows
    return Regression(
        gram - rows * torch.outer(centre, centre),
        targets[:, :width] - rows * torch.outer(shares, centre),
        energy - rows * float(shares.square().sum()),
        rows, centre, shares, least,
    )  # fmt: skip


def best_penalty(fit: Regression) -> float:
    """Walk down the cross-validated error from the middle of `PENALTIES` to its nearest minimum."""
    errors: dict[int, float] = {}
    unit = float(fit.gram.diagonal().mean())

    def error(place: int) -> float:
        if not 0 <= place < len(PENALTIES):
            return float("inf")
        if place not in errors:
            errors[place] = cross_validated(fit, PENALTIES[place] * unit)
        return errors[place]

    place = len(PENALTIES) // 2
    while (best := min((place, place - 1, place + 1), key=error)) != place:
        place = best
    return PENALTIES[place] * unit


def cross_validated(fit: Regression, penalty: float) -> float:
    """‖Y − H·Y‖² / n / (1 − tr(H)/n)², from sums alone."""
    penalty = max(penalty, fit.least)
    inverse = torch.cholesky_inverse(fit.factor(penalty))
    solution = fit.targets @ inverse
    explained = 2 * (solution * fit.targets).sum() - ((solution @ fit.gram) * solution).sum()
    freedom = len(fit.gram) - penalty * float(inverse.diagonal().sum()) + (fit.centre is not None)
    residual = max(fit.energy - float(explained), 0.0) / fit.rows
    return residual / max(1 - freedom / fit.rows, 1e-3) ** 2
