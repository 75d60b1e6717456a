"""The loss that AdaLoRA adds: its two sides stay near orthogonal (Zhang et al. 2023, eq. 4).

Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning, ICLR 2023, arXiv 2303.10512. How
ranks are cut stands in `atoll.servers.budget`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from atoll.tree import Tree

__all__ = ["orthogonality"]


def orthogonality(weight: float) -> Callable[[Tree], Tensor]:
    """γ times the mean of ‖P·Pᵀ − I‖ over the A's, and ‖Pᵀ·P − I‖ over the B's, as PEFT's model."""

    def penalty(values: Tree) -> Tensor:
        found = []
        for name, value in values.items():
            side = name.rpartition(".")[2]
            if side in ("lora_A", "lora_B"):
                product = value @ value.T if side == "lora_A" else value.T @ value
                eye = torch.eye(len(product), dtype=value.dtype, device=value.device)
                found.append(torch.linalg.matrix_norm(product - eye))
        return weight * torch.stack(found).mean()

    return penalty
