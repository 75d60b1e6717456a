"""Sums over a client's features, from which a head is solved exactly, whatever the split.

For features x in R^d (a trailing 1 where the head has a bias) and labels y of C classes, a client
sends n_c = Σ 1[y=c], s_c = Σ x·1[y=c] and the upper triangle of Σ x·xᵀ: sums only. Where y in R^C
are numbers it sends n, Σ y·xᵀ, Σ ‖y‖² and the same triangle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atoll.core import Channel, ClientWork, Context, Failure, Payload, Reply, Request, Server, State
from atoll.local.bench import Bench
from atoll.tree import Tree

__all__ = [
    "Labelled",
    "Shapes",
    "class_sums",
    "feature_work",
    "head_server",
    "head_shapes",
    "head_tree",
    "label_work",
    "number_sums",
    "rounding",
    "symmetric",
]

Labelled = Callable[[Request], tuple[Tensor, Tensor]]
"""A client's features [n, d], with a trailing 1 where the head has a bias, and its labels: classes
[n], or numbers [n, C]."""


@dataclass(frozen=True)
class Shapes:
    """The head's: classes, features as the head reads them, and whether it has a bias."""

    labels: int
    width: int
    bias: bool

    @property
    def columns(self) -> int:
        """Features with the trailing 1 that stands for the bias."""
        return self.width + self.bias


def head_shapes(bench: Bench) -> Shapes:
    """Read off the model's head."""
    assert bench.head is not None, "a model without a head has nothing to solve"
    layer = bench.model.model.get_submodule(bench.head)
    labels, width = layer.get_parameter("weight").shape
    return Shapes(labels, width, layer._parameters.get("bias") is not None)


def feature_work(
    name: str, labelled: Labelled, *, shape: Tree, sums: Callable[[Request, Tensor, Tensor], Tree]
) -> ClientWork:
    """Client work that answers with sums over its features.

    shape: names and shapes of what `sums` (request, X, y) returns.
    """

    return label_work(name, shape=shape, count=lambda request: sums(request, *labelled(request)))


def label_work(name: str, *, shape: Tree, count: Callable[[Request], Tree]) -> ClientWork:
    """Client work that answers with one channel of sums, `statistics`."""

    def template(broadcast: Payload) -> Payload:
        return {"statistics": Channel(shape, "sum")}

    def work(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
        for request in requests:
            yield Reply(request.context.client, {"statistics": Channel(count(request), "sum")})

    return ClientWork(name, template, work, ("statistics",))


def head_server(
    name: str,
    *,
    solve: Callable[[State, Tree], State],
    sends_head: Callable[[State], Tree] | None = None,
) -> Server:
    """A server that turns summed statistics into a head.

    solve: (state, sums) -> the parts of the state that change.
    sends_head: the head that clients need to work (default: none beside the adapter).
    """

    def init(state: State) -> State:
        return state

    def broadcast(state: State, client: str) -> Payload:
        current = sends_head(state) if sends_head else state["head"]
        return {"adapter": Channel(state.get("adapter", {})), "head": Channel(current)}

    def apply(context: Context, state: State, aggregate: Payload) -> State:
        found = solve(state, aggregate["statistics"].tree)
        like = state["head"]
        for part in found.keys() & {"head", "prototypes"}:
            found[part] = {key: x.to(like[key].dtype) for key, x in found[part].items()}
        return {**state, **found}

    return Server(name, init, broadcast, apply)


def symmetric(triangle: Tensor, columns: int) -> Tensor:
    """The full matrix, in float64, of an upper triangle sent row by row."""
    full = torch.zeros(columns, columns, dtype=torch.float64)
    rows, cols = torch.triu_indices(columns, columns)
    full[rows, cols] = triangle.double()
    return full + full.triu(1).T


def class_sums(name: str, labelled: Labelled, shapes: Shapes, *, gram: bool) -> ClientWork:
    """Client work that sends counts, class sums and Σ ‖x‖², and XᵀX when a `gram` is needed."""
    columns = shapes.columns
    shape = {
        "count": torch.zeros(shapes.labels),
        "sum": torch.zeros(shapes.labels, columns),
        "square": torch.zeros(()),
    }
    if gram:
        shape["gram"] = torch.zeros(columns * (columns + 1) // 2)

    def sums(request: Request, x: Tensor, y: Tensor) -> Tree:
        # Added up in float64 and rounded once: solutions read small differences of large sums.
        x = x.double()
        onehot = torch.nn.functional.one_hot(y, shapes.labels).double()
        square = x[:, : shapes.width].square().sum()
        found = {"count": onehot.sum(0), "sum": onehot.T @ x, "square": square}
        if gram:
            found["gram"] = _triangle(x)
        return {name: value.float() for name, value in found.items()}

    return feature_work(name, labelled, shape=shape, sums=sums)


def number_sums(name: str, labelled: Labelled, shapes: Shapes) -> ClientWork:
    """Client work that sends how many rows it has, Σ y·xᵀ, Σ ‖y‖² and XᵀX, for numbers y [n, C]."""
    columns = shapes.columns
    shape = {
        "count": torch.zeros(1),
        "sum": torch.zeros(shapes.labels, columns),
        "energy": torch.zeros(()),
        "gram": torch.zeros(columns * (columns + 1) // 2),
    }

    def sums(request: Request, x: Tensor, y: Tensor) -> Tree:
        x, y = x.double(), y.double()
        found = {
            "count": torch.tensor([len(x)]),
            "sum": y.T @ x,
            "energy": y.square().sum(),
            "gram": _triangle(x),
        }
        return {name: value.float() for name, value in found.items()}

    return feature_work(name, labelled, shape=shape, sums=sums)


def _triangle(x: Tensor) -> Tensor:
    """The upper triangle of XᵀX, row by row."""
    rows, cols = torch.triu_indices(x.shape[1], x.shape[1])
    return (x.T @ x)[rows, cols]


def head_tree(head: str, weight: Tensor, bias: Tensor | None) -> Tree:
    """A solved head under the model's names."""
    named = {f"{head}.weight": weight}
    return named if bias is None else named | {f"{head}.bias": bias}


def rounding(gram: Tensor) -> float:
    """What float32 may have added to an eigenvalue of a sum of x·xᵀ: smaller ones say nothing."""
    return max(1e-6 * float(gram.diagonal().sum()), 1e-12)
