"""Accelerating Heterogeneous Federated Learning with Closed-form Classifiers (Fed3R).

Fanì, Camoriano, Caputo, Ciccone; ICML 2024; https://arxiv.org/abs/2406.01116; eq. 4:
W* = (Σ x·xᵀ + λ·I)⁻¹ Σ x·yᵀ, exact for every split of the rows, in one exchange. The penalty is
chosen from the same sums by generalised cross-validation (Golub, Heath, Wahba; Technometrics 1979,
eq. 1.4).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from atoll.aggregators import mean
from atoll.algorithms.heads.prototypes import class_weights, prototypes
from atoll.core import Algorithm, Channel, Payload, State
from atoll.local.bench import Bench
from atoll.local.statistics import (
    Labelled,
    class_sums,
    head_server,
    head_shapes,
    head_tree,
    symmetric,
)
from atoll.tree import Tree

__all__ = ["PENALTIES", "Fit", "best_penalty", "cross_validated", "fed3r", "ridge"]

PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


def fed3r(
    bench: Bench,
    labelled: Labelled,
    *,
    penalty: float | None = None,
    balance: float = 0.5,
    scale: float = 10.0,
) -> Algorithm:
    """One exchange; `scale` makes the regression's 0 … 1 into logits.

    penalty: λ; None: the one of `PENALTIES` that cross-validates best.
    balance: rows weigh (n / (K·n_c))^balance, from the counts that the state holds (0: all alike).
    """
    assert bench.head is not None
    head, shapes = bench.head, head_shapes(bench)

    def weights(state: State) -> Tensor:
        return class_weights(state["counts"]["count"], balance)

    def solve(state: State, sums: Tree) -> State:
        gram = symmetric(sums["gram"], shapes.columns)
        targets, weight = sums["sum"].double(), weights(state).double()
        chosen = penalty
        if chosen is None:
            mass = float((weight * sums["count"].double()).sum())
            fit = Fit(gram, targets, float(sums["count"].sum()), mass, shapes.bias)
            chosen = best_penalty(fit)
        found = scale * ridge(gram, targets, penalty=chosen, bias=shapes.bias)
        bias = found[:, shapes.width] if shapes.bias else None
        plain = targets / weight.clamp(min=1e-12).unsqueeze(1)
        return {
            "head": head_tree(head, found[:, : shapes.width], bias),
            "prototypes": prototypes(head, {**sums, "sum": plain}, shapes),
            "statistics": sums,
        }

    inner = head_server("fed3r", solve=solve)

    def broadcast(state: State, client: str) -> Payload:
        return {**inner.broadcast(state, client), "weights": Channel({"value": weights(state)})}

    work = class_sums("fed3r", labelled, shapes, gram=True)
    server = replace(inner, broadcast=broadcast)
    return Algorithm("fed3r", work, (), mean(), server, kind="exchange")


def ridge(gram: Tensor, sums: Tensor, *, penalty: float, bias: bool) -> Tensor:
    """[C, columns] from Σ x·xᵀ [columns, columns] and Σ y·xᵀ [C, columns]; no penalty on a bias."""
    factor = torch.linalg.cholesky(gram + torch.diag(_penalties(gram, penalty, bias)))
    return torch.cholesky_solve(sums.T, factor).T


@dataclass(frozen=True)
class Fit:
    """What a regression needs of its rows: Σ w·x·xᵀ, Σ w·y·xᵀ, their number and their weight."""

    gram: Tensor
    sums: Tensor
    rows: float
    mass: float
    bias: bool


def best_penalty(fit: Fit) -> float:
    """Walk down the cross-validated error from the middle of `PENALTIES` to its nearest minimum."""
    errors: dict[int, float] = {}

    def error(place: int) -> float:
        if not 0 <= place < len(PENALTIES):
            return float("inf")
        if place not in errors:
            errors[place] = cross_validated(fit, PENALTIES[place])
        return errors[place]

    place = len(PENALTIES) // 2
    while (best := min((place, place - 1, place + 1), key=error)) != place:
        place = best
    return PENALTIES[place]


def cross_validated(fit: Fit, penalty: float) -> float:
    """‖Y − X·Wᵀ‖² / (1 − tr(H)/n)² for one-hot Y, a weighted mean over rows, from sums alone."""
    weights = _penalties(fit.gram, penalty, fit.bias)
    factor = torch.linalg.cholesky(fit.gram + torch.diag(weights))
    inverse = torch.cholesky_inverse(factor)
    solution = fit.sums @ inverse
    explained = 2 * (solution * fit.sums).sum() - ((solution @ fit.gram) * solution).sum()
    freedom = len(fit.gram) - float((weights * inverse.diagonal()).sum())
    residual = (fit.mass - float(explained)) / fit.mass
    return residual / max(1 - freedom / fit.rows, 1e-3) ** 2


def _penalties(gram: Tensor, penalty: float, bias: bool) -> Tensor:
    weights = torch.full((len(gram),), penalty, dtype=gram.dtype)
    if bias:
        weights[-1] = 1e-9 * penalty
    return weights
