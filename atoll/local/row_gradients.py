"""Gradients of single rows, clipped and added up: each row is a client of its own in the stack.

A stack serves N clients in one pass; here the N are rows, each with a copy of its client's values,
so that backward gives the gradient of each row whatever its layers are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from atoll.tree import Tree

__all__ = ["add_clipped"]


def add_clipped(
    sums: Tensor, values: Tree, owners: Tensor, clip: float, losses: Callable[[Tree], Tensor]
) -> Tensor:
    """Add to `sums` [K, P] the gradients of N rows, each of norm at most `clip`; the losses [N].

    sums: float64, in which no rounding adds up to what a row may do.   values: [K, …].
    owners: [N], whose each row is.   losses: values [N, …] -> the loss of each row.

    A row whose gradient is not finite adds nothing. That depends on the row alone, so that it
    bounds what a row does as clipping does; a failure of the client would tell of it.
    """
    leaves = {name: value.detach()[owners].requires_grad_() for name, value in values.items()}
    found = losses(leaves)
    gradients = torch.autograd.grad(found.sum(), list(leaves.values()))
    flat = [gradient.reshape(len(owners), -1) for gradient in gradients]
    norms = [torch.linalg.vector_norm(one, dim=1, dtype=torch.float64) for one in flat]
    norm = torch.linalg.vector_norm(torch.stack(norms), dim=0)
    lost = ~norm.isfinite()
    shares = sums.new_zeros(len(sums), len(owners))
    factors = (clip / norm.clamp(min=clip)).masked_fill(lost, 0.0)
    shares[owners, torch.arange(len(owners), device=owners.device)] = factors
    if lost.any():
        # Zero times what is not finite would not be zero.
        flat = [one.masked_fill(lost.unsqueeze(1), 0.0) for one in flat]
    parts = torch.split(sums, [one.shape[1] for one in flat], dim=1)
    for part, one in zip(parts, flat, strict=True):
        part.addmm_(shares, one.double())
    return found.detach()
