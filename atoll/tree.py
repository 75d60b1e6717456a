"""Arithmetic on trees: named tensors, as state dicts, PEFT adapters and safetensors are."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = [
    "Tree",
    "add",
    "all_finite",
    "digest",
    "finite",
    "flatten",
    "l2_norm",
    "map_tree",
    "nbytes",
    "scale",
    "stack",
    "subtract",
    "unflatten",
    "zeros_like",
]

Tree = dict[str, Tensor]


def map_tree(function: Callable[..., Tensor], *trees: Tree) -> Tree:
    """Apply `function` name by name; all trees have the names of the first."""
    first, *rest = trees
    assert all(tree.keys() == first.keys() for tree in rest), "trees have different names"
    return {name: function(value, *(tree[name] for tree in rest)) for name, value in first.items()}


def add(a: Tree, b: Tree, *, alpha: float = 1.0) -> Tree:
    """a + alpha·b."""
    return map_tree(lambda x, y: torch.add(x, y, alpha=alpha), a, b)


def subtract(a: Tree, b: Tree) -> Tree:
    """a − b."""
    return map_tree(torch.sub, a, b)


def scale(tree: Tree, factor: float | Tensor) -> Tree:
    """factor · tree."""
    return map_tree(lambda x: x * factor, tree)


def zeros_like(tree: Tree) -> Tree:
    """Zeros with the same names, shapes and dtypes."""
    return map_tree(torch.zeros_like, tree)


def l2_norm(tree: Tree) -> float:
    """The L2 norm of all values together, in float64 (a large tree loses digits in float32)."""
    # Sorted, because a tree that came through a file has its names in another order.
    return math.sqrt(sum(sorted(float(x.double().square().sum()) for x in tree.values())))


def all_finite(tree: Tree) -> bool:
    """Whether no value is NaN or infinite; integer tensors always are finite."""
    return all(finite(x) for x in tree.values() if x.is_floating_point() and x.numel())


def finite(x: Tensor) -> bool:
    """Whether a tensor of floats holds no NaN and no infinity.

    The extremes tell: a NaN anywhere makes both NaN, and one pass needs no second tensor.
    """
    low, high = torch.aminmax(x)
    return math.isfinite(float(low)) and math.isfinite(float(high))


def digest(tree: Tree) -> Tensor:
    """SHA-256 over names, dtypes, shapes and bytes, whatever their order: 32 whole numbers."""
    found = hashlib.sha256()
    for name, value in sorted(tree.items()):
        found.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return torch.tensor(list(found.digest()), dtype=torch.uint8)


def nbytes(tree: Tree) -> int:
    """Bytes of the raw values."""
    return sum(x.numel() * x.element_size() for x in tree.values())


def stack(trees: Sequence[Tree]) -> Tree:
    """Join K trees into one whose tensors have a leading dimension K."""
    return {name: torch.stack([tree[name] for tree in trees]) for name in trees[0]}


def flatten(tree: Tree) -> Tensor:
    """All values of a stacked tree as one [K, P] matrix, in the order of the names."""
    return torch.cat([value.reshape(value.shape[0], -1) for value in tree.values()], dim=1)


def unflatten(flat: Tensor, like: Tree) -> Tree:
    """Views of [K, P] with the names and per-client shapes of `like` (which has no K)."""
    sizes = [value.numel() for value in like.values()]
    parts = torch.split(flat, sizes, dim=1)
    return {
        name: part.view(flat.shape[0], *value.shape)
        for (name, value), part in zip(like.items(), parts, strict=True)
    }
