"""Logistic regression by a bound on its curvature, with Nesterov steps on summed gradients.

Böhning, Lindsay; Monotonicity of quadratic-approximation algorithms; Ann. Inst. Stat. Math. 1988:
the Hessian of the softmax loss is at most ½·(I − 11ᵀ/C) ⊗ XᵀX ≤ ½·I ⊗ XᵀX, which the statistics
hold. Steps use that bound for the metric and Nesterov's sequence (FISTA, Beck and Teboulle 2009,
eq. 4.2) for the pace. One exchange a step, gradients as sums only: the pooled optimum, whatever the
split.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from atoll.aggregators import mean
from atoll.core import Algorithm, Request, State
from atoll.local.bench import Bench
from atoll.local.statistics import (
    Labelled,
    Shapes,
    feature_work,
    head_server,
    head_shapes,
    head_tree,
    rounding,
    symmetric,
)
from atoll.tree import Tree

__all__ = ["fedlogistic"]


def fedlogistic(bench: Bench, labelled: Labelled, *, penalty: float = 1e-5) -> Algorithm:
    """One step from the head that the state holds, under the statistics that it was solved from.

    `penalty` is on ½·‖W‖² beside the mean loss. The state's part `solver` carries the sequence; a
    new solution from statistics starts it again.
    """
    assert bench.head is not None
    head, shapes = bench.head, head_shapes(bench)
    shape = {"gradient": torch.zeros(shapes.labels, shapes.columns), "count": torch.zeros(())}

    def sums(request: Request, x: Tensor, y: Tensor) -> Tree:
        chances = (x @ _joined(request.payload["head"].tree, head, shapes).to(x).T).softmax(1)
        gradient = (chances - one_hot(y, shapes.labels)).T @ x
        return {"gradient": gradient, "count": torch.tensor(float(len(y)))}

    def ahead(state: State) -> Tree:
        if not _running(state):
            return state["head"]
        return _named(state["solver"]["ahead"].to(_dtype(state, head)), head, shapes)

    def solve(state: State, found: Tree) -> State:
        at = _joined(ahead(state), head, shapes).double()
        # Divided by the rows that answered: a client that missed the step is left out of the mean.
        gradient = found["gradient"].double() / found["count"].double() + penalty * at
        step = torch.linalg.solve(_metric(state, shapes, penalty), gradient.T).T
        # A class that nobody has rows of stays where the statistics put it.
        new = torch.where(_present(state), at - step, at)
        pace = float(state["solver"]["pace"]) if _running(state) else 1.0
        following = (1 + math.sqrt(1 + 4 * pace**2)) / 2
        old = _joined(state["head"], head, shapes).double()
        solver = {
            "ahead": new + (pace - 1) / following * (new - old),
            "pace": torch.tensor(following, dtype=torch.float64),
            "sum": state["statistics"]["sum"],
        }
        return {"head": _named(new, head, shapes), "solver": solver}

    work = feature_work("fedlogistic", labelled, shape=shape, sums=sums)
    server = head_server("fedlogistic", solve=solve, sends_head=ahead)
    return Algorithm("fedlogistic", work, (), mean(), server, kind="exchange")


def _present(state: State) -> Tensor:
    return (state["statistics"]["count"] > 0).unsqueeze(1)


def _metric(state: State, shapes: Shapes, penalty: float) -> Tensor:
    """½·XᵀX/n + λ·I, where λ is no smaller than what rounding leaves of a flat direction."""
    statistics = state["statistics"]
    count = float(statistics["count"].sum())
    gram = symmetric(statistics["gram"], shapes.columns)
    floor = max(penalty, rounding(gram) / count)
    return 0.5 * gram / count + floor * torch.eye(len(gram), dtype=gram.dtype)


def _joined(tree: Tree, head: str, shapes: Shapes) -> Tensor:
    weight = tree[f"{head}.weight"]
    return torch.cat([weight, tree[f"{head}.bias"].unsqueeze(1)], 1) if shapes.bias else weight


def _named(matrix: Tensor, head: str, shapes: Shapes) -> Tree:
    bias = matrix[:, shapes.width] if shapes.bias else None
    return head_tree(head, matrix[:, : shapes.width], bias)


def _dtype(state: State, head: str) -> torch.dtype:
    return state["head"][f"{head}.weight"].dtype


def _running(state: State) -> bool:
    """Whether the sequence belongs to the statistics that the state holds now."""
    solver = state.get("solver", {})
    return "sum" in solver and torch.equal(solver["sum"], state["statistics"]["sum"])
