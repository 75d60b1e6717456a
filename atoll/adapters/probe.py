"""One small batch, forward and backward: what trains, and what clients may share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atoll.adapters.site import Frame
from atoll.adapters.stacked import StackedModel
from atoll.models.base import Base
from atoll.models.objective import Batch
from atoll.tree import Tree

__all__ = ["Found", "batch_norm", "head_layers", "try_out"]


@dataclass(frozen=True)
class Found:
    """Values that a gradient reaches, and others.

    shared: sites see one row for each row of the batch.
    mixes: what the model makes of a row depends on the rows beside it.
    """

    reached: frozenset[str]
    idle: tuple[str, ...]
    shared: bool
    mixes: bool = False


def head_layers(base: Base) -> list[str]:
    """Linear layers that train whole: the model's head, and layers that its checkpoint lacked."""
    if base.head is None:
        return []
    top, drawn = base.head.split(".")[0], {name.rpartition(".")[0] for name in base.fresh}
    return [
        name
        for name, module in base.model.named_modules()
        if isinstance(module, nn.Linear) and (name.split(".")[0] == top or name in drawn)
    ]


def batch_norm(model: nn.Module) -> str | None:
    """Why clients may not share a batch: a module that normalises over it."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            return f"{name} normalises over the batch, which clients must not share"
    return None


def try_out(model: StackedModel, batch: Batch, *, clients: int) -> Found:
    """One forward and one backward pass over a small batch."""
    rows = batch.target.shape[0] * batch.views
    seen: list[bool] = []

    def look(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(args[0].shape[0] == rows)

    layers: Sequence[nn.Module] = [model.model.get_submodule(site.module) for site in model.sites]
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        # As in training: float32, or finer where the model is.
        dtype = torch.promote_types(next(model.model.parameters()).dtype, torch.float32)
        values = {
            name: value.to(dtype).unsqueeze(0).repeat(clients, *[1] * value.dim()).requires_grad_()
            for name, value in model.init(0).items()
        }
        extents = ((rows // clients, batch.target.shape[1]),) * clients
        logits = model.forward(values, batch.inputs, Frame(clients, extents))
        torch.autograd.backward(logits.to(dtype).square().sum())
    finally:
        for hook in hooks:
            hook.remove()
    reached = frozenset(name for name, value in values.items() if value.grad is not None)
    idle = tuple(name for name in values if name not in reached)
    return Found(reached, idle, all(seen), clients > 1 and _mixes(model, values, batch, logits))


def _mixes(model: StackedModel, values: Tree, batch: Batch, logits: Tensor) -> bool:
    """Whether the first half of a batch gives other logits without the second."""
    inputs = {name: value[: len(value) // 2] for name, value in batch.inputs.items()}
    rows = batch.target.shape[0] * batch.views // 2
    first = {name: value[:1].detach() for name, value in values.items()}
    with torch.no_grad():
        found = model.forward(first, inputs, Frame(1, ((rows, batch.target.shape[1]),)))
    beside = logits.detach()[: len(found)]
    # Whoever mixes rows moves them by more than rounding does.
    allowed = 16 * math.sqrt(torch.finfo(found.dtype).eps) * float(beside.abs().max())
    return not torch.allclose(found, beside, rtol=0.0, atol=allowed, equal_nan=True)
