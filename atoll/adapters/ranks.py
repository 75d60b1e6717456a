"""Clients whose LoRA has other ranks than others', in one stack."""

from __future__ import annotations

from collections.abc import Sequence

from torch.nn.functional import pad

from atoll.adapters.lora import A, B
from atoll.tree import Tree

__all__ = ["pad_ranks"]


def pad_ranks(trees: Sequence[Tree]) -> tuple[list[Tree], dict[str, tuple[int, ...]]]:
    """Fill A and B up with zeros to the largest rank among `trees`, and tell the ranks they had.

    Zeros stay: the gradient of each filled row of A has a factor of B that is zero, and of B of A.
    """
    ranks = {name: tuple(tree[name].shape[0] for tree in trees) for name in trees[0]
             if name.endswith(A)}  # fmt: skip
    uneven = {name: own for name, own in ranks.items() if len(set(own)) > 1}
    padded = [dict(tree) for tree in trees]
    for name_a, own in uneven.items():
        name_b, widest = name_a.removesuffix(A) + B, max(own)
        for tree, r in zip(padded, own, strict=True):
            tree[name_a] = pad(tree[name_a], (0, 0, 0, widest - r))
            tree[name_b] = pad(tree[name_b], (0, widest - r))
    return padded, uneven
