"""What is measured of a layer's neurons, which are the rows of its weights or their columns."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["movement", "rms", "shifts", "twins"]

ALIKE = 0.95
"""The cosine of two that are the same, or each other's opposite."""
CHUNK = 1024


def movement(sent: Tensor, held: Tensor) -> Tensor:
    """How far the rows of a tensor moved, in the size that they had, or usually have at the start.

    One number [rows]; of a vector, one for all of it.
    """
    if held.dim() < 2:
        sent, held = sent.flatten().unsqueeze(0), held.flatten().unsqueeze(0)
    # Half of what a linear layer starts with: less is the size of what was made, not trained.
    least = 0.5 if len(held) == 1 else 0.5 / min(held.shape) ** 0.5
    moved, size = (rms(one.flatten(1).double()) for one in (sent - held, held))
    return moved / size.clamp(min=least)


def rms(rows: Tensor) -> Tensor:
    """The size of a row: the root of the mean of its squares."""
    found: Tensor = rows.square().mean(1).sqrt()
    return found


def twins(rows: Tensor) -> int:
    """How many rows have another one like them, up to the sign."""
    sizes = rows.norm(dim=1, keepdim=True)
    unit = (rows / sizes.clamp(min=torch.finfo(rows.dtype).tiny))[sizes[:, 0] > 0]
    found = 0
    for start in range(0, len(unit), CHUNK):
        cosines = (unit[start : start + CHUNK] @ unit.T).abs()
        cosines.diagonal(start).zero_()
        found += int((cosines.amax(1) > ALIKE).sum())
    return found


def shifts(weight: Tensor, bias: Tensor) -> Tensor:
    """How far each neuron's bias lies from nothing, in lengths of its weights."""
    sizes: Tensor = weight.norm(dim=1 if len(bias) == len(weight) else 0)
    return bias.abs() / sizes.clamp(min=torch.finfo(weight.dtype).tiny)
