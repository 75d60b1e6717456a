"""LoRA over a stack of clients (Hu et al. 2022, arXiv 2106.09685, eq. 3; rsLoRA: arXiv 2312.03732).

h = W0·x + s·B_k·A_k·x with s = α/r, or α/√r for rsLoRA. Names and shapes are PEFT's.

FFA-LoRA (Sun et al. 2024, arXiv 2403.12313): A stays as it was drawn, the same at every client, and
B alone trains and travels: the mean of updates is the update of the mean, and noise enters once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atoll import rng
from atoll.adapters.plan import INSIDE, PeftFile, Plan, first_names, named_by
from atoll.adapters.site import Frame, Site, split_clients
from atoll.adapters.targets import (
    by_pattern,
    in_layers,
    linear_fans,
    linear_targets,
    spared,
    transposed,
)
from atoll.config.adapter import Adapter
from atoll.errors import ModelError
from atoll.models.base import Base
from atoll.tree import Tree

__all__ = ["LoraScale", "first_a", "lora_plan", "lora_site"]

A, B = "lora_A.weight", "lora_B.weight"
_MAMBA = {"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"}
"""Types of model with fused kernels; the same as PEFT's list."""


@dataclass(frozen=True)
class LoraScale:
    """s of the equation above, which depends on the rank that a client has."""

    lora_alpha: float
    use_rslora: bool = False

    def at(self, rank: int) -> float:
        """α/rank, or α/√rank for rsLoRA; a rank of 0 adds nothing, whatever its scale."""
        rank = max(rank, 1)
        return self.lora_alpha / (math.sqrt(rank) if self.use_rslora else rank)


def lora_site(
    module: str,
    fan: tuple[int, int],
    *,
    r: int,
    scale: LoraScale,
    dropout: float = 0.0,
    fixed: Tensor | None = None,
) -> Site:
    """LoRA on one linear layer; A starts Kaiming-uniform and B at zero, as in PEFT.

    fixed: an A [r, d_in] that does not train; None: it does.
    """
    d_in, d_out = fan
    name_a, name_b = f"{module}.{A}", f"{module}.{B}"

    def init(generator: torch.Generator) -> Tree:
        b = torch.zeros(d_out, r)
        return (
            {name_b: b} if fixed is not None else {name_a: first_a(generator, r, d_in), name_b: b}
        )

    def apply(x: Tensor, out: Tensor, values: Tree, frame: Frame) -> Tensor:
        b = values[name_b]
        a = values[name_a] if fixed is None else fixed.to(b).expand(frame.clients, r, d_in)
        if dropout and frame.generators is not None:
            x = _drop(x, frame, dropout)
        x = split_clients(x.to(a.dtype), frame.clients)
        low = torch.bmm(x, a.transpose(1, 2))
        factor = scale.at(a.shape[1])
        if name_a in frame.ranks:
            own = [scale.at(rank) for rank in frame.ranks[name_a]]
            low, factor = low * low.new_tensor(own).view(-1, 1, 1), 1.0
        if out.dtype != b.dtype:
            delta = torch.bmm(low, b.transpose(1, 2)).mul_(factor)
            return out + delta.view_as(out).to(out.dtype)
        stacked = split_clients(out, frame.clients)
        return torch.baddbmm(stacked, low, b.transpose(1, 2), alpha=factor).view_as(out)

    return Site(module, init, apply, fixed={} if fixed is None else {name_a: fixed})


def first_a(generator: torch.Generator, r: int, d_in: int) -> Tensor:
    """A [r, d_in], Kaiming-uniform as PEFT's."""
    bound = 1 / math.sqrt(d_in)
    return torch.empty(r, d_in).uniform_(-bound, bound, generator=generator)


def _drop(x: Tensor, frame: Frame, rate: float) -> Tensor:
    """Inverted dropout; each client draws for its own rows and length, as it would alone."""
    assert frame.generators is not None
    mask = torch.zeros(frame.clients, x.shape[0] // frame.clients, *x.shape[1:], dtype=x.dtype)
    for k, ((rows, length), generator) in enumerate(
        zip(frame.extents, frame.generators, strict=True)
    ):
        own = mask[k, :rows, :length] if x.dim() == 3 else mask[k, :rows]
        own.copy_(torch.empty_like(own).bernoulli_(1 - rate, generator=generator))
    return x * mask.view_as(x).to(x.device).div_(1 - rate)


def _inside(base: Base, rule: str | Sequence[str], heads: Sequence[str]) -> list[str]:
    """The linear layers that a rule names, without those that PEFT refuses.

    Raises:
        ModelError: where one of those is named.
    """
    config: Any = base.backbone.config
    # Fused kernels read these weights past the layer.
    fused = [
        name for name, _ in base.backbone.named_modules()
        if config.model_type in _MAMBA and name.endswith(".out_proj")
    ]  # fmt: skip
    found = linear_targets(base.backbone, rule, leave_out=[*spared(base, heads), *fused])
    if named := [name for name in found if name in fused]:
        raise ModelError(
            f"adapter.target_modules names {named[0]}, whose weights the fused kernels of "
            f"{config.model_type} models read past the layer, so that PEFT puts no LoRA there; "
            "leave it out"
        )
    return found


def _held(fans: Mapping[str, tuple[int, int]], rank: Mapping[str, int], strip: int) -> Tree:
    """An A for each module, the same wherever a model has these names: nobody has to send it."""
    draws = {name: rng.generator(0, "frozen A", name[strip:]) for name in fans}
    return {
        name: first_a(draws[name], rank[name[strip:]], d_in) for name, (d_in, _) in fans.items()
    }


def lora_plan(base: Base, settings: Adapter, heads: Sequence[str], idle: Collection[str]) -> Plan:
    """LoRA on the linear layers that the settings name, but not on heads.

    Raises:
        ModelError: when nothing matches.
    """
    rule = settings.target_modules or "all-linear"
    inside = _inside(base, rule, heads)
    if settings.layers_to_transform is not None:
        inside = in_layers(inside, settings.layers_to_transform, settings.layers_pattern)
    rank = by_pattern(inside, settings.rank_pattern, settings.r, key="adapter.rank_pattern")
    alpha = by_pattern(
        inside, settings.alpha_pattern, settings.lora_alpha, key="adapter.alpha_pattern"
    )
    fans = linear_fans(base, inside, leave_out=[*heads, *idle])
    targets, strip = list(fans), len(base.prefix)
    fixed = _held(fans, rank, strip) if settings.freeze_a else {}
    sites = [
        lora_site(
            name,
            shape,
            r=rank[name[strip:]],
            scale=LoraScale(alpha[name[strip:]], settings.use_rslora),
            dropout=settings.lora_dropout,
            fixed=fixed.get(name),
        )
        for name, shape in fans.items()
    ]

    def config() -> Any:
        from peft import LoraConfig

        return LoraConfig(
            r=settings.r,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.lora_dropout,
            rank_pattern=dict(settings.rank_pattern),
            alpha_pattern=dict(settings.alpha_pattern),
            use_rslora=settings.use_rslora,
            target_modules=first_names(targets, base.prefix),
            fan_in_fan_out=transposed(base, targets),
        )

    return Plan(
        base.model,
        targets,
        sites,
        drops=settings.lora_dropout > 0,
        named=named_by(rule),
        peft=PeftFile(
            config, fixed={f"{INSIDE}{name[strip:]}.{A}": a for name, a in fixed.items()}
        ),
    )
