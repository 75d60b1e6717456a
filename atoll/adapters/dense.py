"""Values that replace a module's own, one set a client: heads (`modules_to_save`) and biases."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from atoll.adapters.site import Frame, Site, split_clients
from atoll.tree import Tree

__all__ = ["bias_site", "linear_site", "precise"]


def precise(value: Tensor) -> Tensor:
    """A copy to train: a step of training is lost in less than float32."""
    return value.detach().clone().to(torch.promote_types(value.dtype, torch.float32))


def linear_site(name: str, module: nn.Linear, *, last: bool = True) -> Site:
    """A whole linear layer a client. Values that are not stacked serve every client.

    last: the layer gives the logits, which keep the values' precision; what follows any other
        layer computes in the model's.
    """
    names = [f"{name}.{key}" for key, _ in module.named_parameters()]

    def init(generator: torch.Generator) -> Tree:
        return {f"{name}.{key}": precise(value) for key, value in module.named_parameters()}

    def apply(x: Tensor, out: Tensor, values: Tree, frame: Frame) -> Tensor:
        weight = values[names[0]].expand(frame.clients, -1, -1).transpose(1, 2)
        x = split_clients(x.to(weight.dtype), frame.clients)
        if len(names) == 1:
            found = torch.bmm(x, weight)
        else:
            found = torch.baddbmm(values[names[1]].unsqueeze(1), x, weight)
        return found.view_as(out) if last else found.view_as(out).to(out.dtype)

    return Site(name, init, apply)


def bias_site(name: str, module: nn.Module) -> Site:
    """A module's bias a client (BitFit, Ben Zaken et al. 2022, arXiv 2106.10199)."""
    key = f"{name}.bias"
    own = module.get_parameter("bias")

    def init(generator: torch.Generator) -> Tree:
        return {key: precise(own)}

    def apply(x: Tensor, out: Tensor, values: Tree, frame: Frame) -> Tensor:
        change = (values[key] - own.detach()).to(out.dtype).unsqueeze(1)
        return (split_clients(out, frame.clients) + change).view_as(out)

    return Site(name, init, apply)
