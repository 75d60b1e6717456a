"""Where an adapter touches a model: one module, its values, and what they do to its output.

Shapes: K clients, b rows each, T tokens, d features. A module that sits in a stack sees
[K·b, T, d] or [K·b, d]; an adapter's values have a leading K.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from atoll.tree import Tree

__all__ = ["Frame", "Site", "fan", "split_clients"]


@dataclass(frozen=True)
class Frame:
    """One forward pass of a stack.

    extents: for each client its own (rows, length); the rest of [b, T] is padding. A length of
        None means that nothing is padded.
    generators: one a client, for the adapter's dropout; None when nothing is dropped.
    ranks: one a client, by the name of the value whose first dimension was filled up with zeros.
    """

    clients: int
    extents: tuple[tuple[int, int | None], ...] = ()
    generators: tuple[torch.Generator, ...] | None = None
    ranks: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Site:
    """One adapted module.

    init: generator -> the first values (no K), under their full names.
    apply: (input, output, values [K, …], frame) -> the adapted output.
    before: (input, values [K, …], frame) -> what the module reads instead.
    fixed: what it computes with and does not train, under full names.
    """

    module: str
    init: Callable[[torch.Generator], Tree]
    apply: Callable[[Tensor, Tensor, Tree, Frame], Tensor] | None = None
    before: Callable[[Tensor, Tree, Frame], Tensor] | None = None
    fixed: Tree = field(default_factory=dict)


def fan(module: nn.Module) -> tuple[int, int] | None:
    """(d_in, d_out) of a linear layer, GPT-2's transposed one included; None for other modules."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, Conv1D):
        d_in, d_out = module.weight.shape
        return int(d_in), int(d_out)
    return None


def split_clients(x: Tensor, clients: int) -> Tensor:
    """[K·b, …, d] as [K, b·…, d], without a copy when x is contiguous."""
    return x.reshape(clients, -1, x.shape[-1])
