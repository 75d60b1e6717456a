"""Where an upload shows inputs: the first linear layers that train, and what they read.

A server knows the model that it sent. So it can compute what these layers would read of any token
or row, and hold that against the update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from atoll.adapters.lora import A, B
from atoll.adapters.site import Frame, fan
from atoll.audit.span import basis_of, residuals
from atoll.local.bench import Bench
from atoll.models.objective import Batch
from atoll.tree import Tree

__all__ = [
    "Sight",
    "Space",
    "distance",
    "embedding_of",
    "inputs_of",
    "row_vectors",
    "sights_of",
    "spaces_of",
]

WEIGHT = "weight"


@dataclass(frozen=True)
class Sight:
    """Layers that train and read the same vectors.

    modules: their names, in order.   lora: those of which B trains, and A may; of others their
        weight.
    """

    modules: tuple[str, ...]
    lora: frozenset[str]


@dataclass(frozen=True)
class Space:
    """A span that an update tells: of what is read, or of what `through` [r, d] makes of it."""

    basis: Tensor
    through: Tensor | None = None


class _Enough(Exception):
    """A forward pass has come as far as anyone wants to see."""


def embedding_of(backbone: nn.Module) -> nn.Module | None:
    """The table of a model's tokens; None where it has none, or several towers."""
    model: Any = backbone
    try:
        found: nn.Module | None = model.get_input_embeddings()
    except NotImplementedError:
        return None
    return found


def sights_of(bench: Bench, values: Tree, batch: Batch, *, trained: Iterable[str]) -> list[Sight]:
    """The linear layers that train, in the order in which they read; as far as each is run once.

    trained: names of values that an update moves.
    """
    names = list(trained)
    lora = {name.removesuffix(f".{B}") for name in names if name.endswith(f".{B}")}
    model, suffix = bench.model.model, f".{WEIGHT}"
    owners = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
    whole = {one for one in owners if one not in lora and _is_linear(model, one)}
    calls: list[tuple[str, Tensor]] = []
    _run(bench, values, batch.inputs, sorted(lora | whole), lambda *call: calls.append(call))
    run = [name for name, _ in calls]
    groups: list[list[tuple[str, Tensor]]] = []
    for name, read in calls:
        if run.count(name) > 1:
            break
        if groups and _equal(groups[-1][0][1], read):
            groups[-1].append((name, read))
        else:
            groups.append([(name, read)])
    return [
        Sight(tuple(name for name, _ in group), frozenset(lora & {name for name, _ in group}))
        for group in groups
    ]


def _equal(x: Tensor, y: Tensor) -> bool:
    return x.shape == y.shape and torch.equal(x, y)


def _is_linear(model: nn.Module, name: str) -> bool:
    return name in dict(model.named_modules()) and fan(model.get_submodule(name)) is not None


def inputs_of(bench: Bench, values: Tree, inputs: Mapping[str, Tensor], sight: Sight) -> Tensor:
    """What the layers read, [N, T, d] or [N, d]; the model is run no further than there."""
    found: list[Tensor] = []

    def see(name: str, read: Tensor) -> None:
        found.append(read)
        raise _Enough

    _run(bench, values, inputs, sight.modules[:1], see)
    return found[0]


def row_vectors(bench: Bench, values: Tree, batch: Batch, sight: Sight) -> Tensor:
    """What the layers read of a batch without its padding, [n, d]."""
    read = inputs_of(bench, values, batch.inputs, sight)
    mask = batch.inputs.get("attention_mask")
    if mask is not None and read.dim() == 3 and mask.shape == read.shape[:2]:
        return read[mask.to(read.device).bool()]
    return read.flatten(0, -2)


def spaces_of(bench: Bench, update: Tree, values: Tree, sight: Sight) -> list[Space]:
    """What an update to `values` tells of the inputs; empty where it tells nothing.

    While B is zero, as before the first step, or where A does not train, B tells of A·x.
    """
    fixed = {name: value for site in bench.model.sites for name, value in site.fixed.items()}
    rows = [_weight_rows(bench, update, sight, name) for name in sight.modules]
    if any(bool(one.any()) for one in rows):
        basis = basis_of(torch.cat([one.double() for one in rows if len(one)]))
        return [] if basis is None else [Space(basis)]
    found = []
    for name in sight.modules:
        basis = basis_of(update[f"{name}.{B}"].double()) if name in sight.lora else None
        if basis is not None:
            found.append(Space(basis, (values | fixed)[f"{name}.{A}"]))
    return found


def _weight_rows(bench: Bench, update: Tree, sight: Sight, name: str) -> Tensor:
    """[m, d]: the rows of a gradient that are sums of inputs."""
    if name in sight.lora:
        return update.get(f"{name}.{A}", update[f"{name}.{B}"].new_zeros(0, 1))
    found = update[f"{name}.{WEIGHT}"]
    return found.T if isinstance(bench.model.model.get_submodule(name), Conv1D) else found


def distance(vectors: Tensor, spaces: Sequence[Space]) -> Tensor:
    """[…, d] -> […]: the mean residual of vectors over the spaces, from 0 (inside) to 1."""
    found = []
    for space in spaces:
        seen = vectors if space.through is None else vectors @ space.through.to(vectors).T
        found.append(residuals(seen, space.basis.to(vectors.device)))
    return torch.stack(found).mean(0)


def _run(
    bench: Bench,
    values: Tree,
    inputs: Mapping[str, Tensor],
    names: Sequence[str],
    see: Callable[[str, Tensor], None],
) -> None:
    stacked = {name: value.unsqueeze(0).to(bench.device) for name, value in values.items()}
    placed = {name: value.to(bench.device) for name, value in inputs.items()}
    with torch.no_grad(), _watched(bench.model.model, names, see), suppress(_Enough):
        bench.model.forward(stacked, placed, Frame(1))


@contextmanager
def _watched(
    model: nn.Module, names: Sequence[str], see: Callable[[str, Tensor], None]
) -> Iterator[None]:
    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def look(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            see(name, args[0].detach())

        return look

    hooks = [model.get_submodule(n).register_forward_pre_hook(hook(n)) for n in names]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()
