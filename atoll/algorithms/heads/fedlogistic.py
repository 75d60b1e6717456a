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
    feature_work,
    head_server,
    head_shapes,
    head_tree,
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
    shape = {"gradient": torch.zeros(shapes.labels, shapes.columns), "loss": torch.zeros(())}

    def joined(tree: Tree) -> Tensor:
        weight = tree[f"{head}.weight"]
        return torch.cat([weight, tree[f"{head}.bias"].unsqueeze(1)], 1) if shapes.bias else weight

    def named(matrix: Tensor) -> Tree:
        bias = matrix[:, shapes.width] if shapes.bias else None
        return head_tree(head, matrix[:, : shapes.width], bias)

    def sums(request: Request, x: Tensor, y: Tensor) -> Tree:
        logits = x @ joined(request.payload["head"].tree).T
        loss = torch.nn.functional.cross_entropy(logits, y, reduction="sum")
        return {"gradient": (logits.softmax(1) - one_hot(y, shapes.labels)).T @ x, "loss": loss}

    def ahead(state: State) -> Tree:
        return named(state["solver"]["ahead"].float()) if _running(state) else state["head"]

    def solve(state: State, found: Tree) -> State:
        count = state["statistics"]["count"].sum().double()
        curvature = 0.5 * symmetric(state["statistics"]["gram"], shapes.columns) / count
        metric = curvature + penalty * torch.eye(len(curvature), dtype=torch.float64)
        at = joined(ahead(state)).double()
        gradient = found["gradient"].double() / count + penalty * at
        new = at - torch.linalg.solve(metric, gradient.T).T
        pace = float(state["solver"]["pace"]) if _running(state) else 1.0
        following = (1 + math.sqrt(1 + 4 * pace**2)) / 2
        old = joined(state["head"]).double()
        solver = {
            "ahead": new + (pace - 1) / following * (new - old),
            "pace": torch.tensor(following, dtype=torch.float64),
            "count": count,
            "sum": state["statistics"]["sum"],
        }
        return {"head": named(new), "solver": solver}

    work = feature_work("fedlogistic", labelled, shape=shape, sums=sums)
    server = head_server("fedlogistic", solve=solve, sends_head=ahead)
    return Algorithm("fedlogistic", work, (), mean(), server, kind="exchange")


def _running(state: State) -> bool:
    """Whether the sequence belongs to the statistics that the state holds now."""
    solver = state.get("solver", {})
    return "sum" in solver and torch.equal(solver["sum"], state["statistics"]["sum"])
