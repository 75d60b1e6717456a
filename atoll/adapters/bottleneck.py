"""Bottleneck adapters over a stack of clients (Houlsby et al. 2019, arXiv 1902.00751, fig. 2).

h = y + U_k·f(D_k·y + d_k) + u_k on the output y of a block's attention and of its feed-forward
part, before the residual is added; Pfeiffer et al. (2021, arXiv 2005.00247) found that the one
after the feed-forward part is enough. U and u start at zero, so that nothing changes at first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from atoll.adapters.blocks import attention_outputs, feedforward_outputs
from atoll.adapters.plan import Plan, named_by
from atoll.adapters.site import Frame, Site, split_clients
from atoll.adapters.targets import linear_fans, linear_targets, spared
from atoll.config.adapter import Adapter
from atoll.errors import ModelError
from atoll.models.base import Base
from atoll.tree import Tree

__all__ = ["bottleneck_plan", "bottleneck_site"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
    "silu": functional.silu,
    "tanh": torch.tanh,
}


def bottleneck_site(module: str, width: int, *, inner: int, activation: str) -> Site:
    """One bottleneck of `inner` features on the output of a module, which has `width`."""
    f = _ACTIVATIONS[activation]
    down, up = f"{module}.adapter_down", f"{module}.adapter_up"

    def init(generator: torch.Generator) -> Tree:
        bound = 1 / math.sqrt(width)
        weight = torch.empty(inner, width).uniform_(-bound, bound, generator=generator)
        return {
            f"{down}.weight": weight,
            f"{down}.bias": torch.zeros(inner),
            f"{up}.weight": torch.zeros(width, inner),
            f"{up}.bias": torch.zeros(width),
        }

    def apply(x: Tensor, out: Tensor, values: Tree, frame: Frame) -> Tensor:
        weights = values[f"{down}.weight"], values[f"{up}.weight"]
        shrink, widen = (w.expand(frame.clients, -1, -1).transpose(1, 2) for w in weights)
        shifts = values[f"{down}.bias"].unsqueeze(1), values[f"{up}.bias"].unsqueeze(1)
        stacked = split_clients(out.to(shrink.dtype), frame.clients)
        low = f(torch.baddbmm(shifts[0], stacked, shrink))
        return out + torch.baddbmm(shifts[1], low, widen).view_as(out).to(out.dtype)

    return Site(module, init, apply)


def bottleneck_plan(
    base: Base, settings: Adapter, heads: Sequence[str], idle: Collection[str]
) -> Plan:
    """Bottlenecks where the placement says, or after the modules that the settings name.

    Raises:
        ModelError: when nothing matches, or the model's blocks cannot be told apart.
    """
    rule, inside = settings.target_modules, base.backbone
    if rule is not None:
        found = linear_targets(inside, rule, leave_out=spared(base, heads))
    else:
        found = feedforward_outputs(inside)
        if settings.placement == "houlsby":
            found = [*attention_outputs(inside), *found]
        if not found:
            raise ModelError(
                "adapter.method is bottleneck, but the model has no list of blocks; name the "
                "modules in adapter.target_modules"
            )
    sites = [
        bottleneck_site(
            name,
            width,
            inner=max(1, width // settings.reduction_factor),
            activation=settings.activation,
        )
        for name, (_, width) in linear_fans(base, found, leave_out=[*heads, *idle]).items()
    ]
    return Plan(base.model, [site.module for site in sites], sites, named=named_by(rule))
