"""(IA)³ over a stack of clients (Liu et al. 2022, arXiv 2205.05638, section 3.3).

Keys and values are scaled by l_k; in the feed-forward part, what its last layer reads is. Names,
shapes and the usual targets of each family are PEFT's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from atoll.adapters.blocks import block_lists, feedforward_outputs
from atoll.adapters.plan import PeftFile, Plan, first_names, named_by
from atoll.adapters.site import Frame, Site, fan, split_clients
from atoll.adapters.targets import linear_fans, linear_targets, matching, spared, transposed
from atoll.config.adapter import Adapter
from atoll.errors import ModelError
from atoll.models.base import Base
from atoll.tree import Tree

__all__ = ["ia3_plan", "ia3_site"]

_KEYS_AND_VALUES = re.compile(r"(?:k|v|key|value|qkv|query_key_value|c_attn|Wqkv)(?:_proj|_lin)?")
"""What families call the layers of keys and values, alone or with the queries."""


def ia3_site(module: str, fan: tuple[int, int], *, feedforward: bool) -> Site:
    """A scale for each output of a linear layer, or for each input of a feed-forward one."""
    d_in, d_out = fan
    name, shape = f"{module}.ia3_l", (1, d_in) if feedforward else (d_out, 1)

    def init(generator: torch.Generator) -> Tree:
        return {name: torch.ones(shape)}

    def scaled(x: Tensor, values: Tree, frame: Frame) -> Tensor:
        scale = values[name].flatten(1).unsqueeze(1)
        stacked = split_clients(x.to(scale.dtype), frame.clients)
        return (stacked * scale).view(x.shape).to(x.dtype)

    if feedforward:
        return Site(module, init, before=scaled)
    return Site(module, init, lambda x, out, values, frame: scaled(out, values, frame))


def ia3_plan(base: Base, settings: Adapter, heads: Sequence[str], idle: Collection[str]) -> Plan:
    """(IA)³ on PEFT's usual targets for the family, or on those that the settings name.

    Raises:
        ModelError: when nothing matches.
    """
    found, feedforward = _targets(base, settings, heads)
    fans = linear_fans(base, found, leave_out=[*heads, *idle])
    inner = [name for name in fans if name.removeprefix(base.prefix) in feedforward]
    sites = [ia3_site(name, shape, feedforward=name in inner) for name, shape in fans.items()]

    def config() -> Any:
        from peft import IA3Config

        return IA3Config(
            target_modules=first_names(list(fans), base.prefix),
            feedforward_modules=first_names(inner, base.prefix),
            fan_in_fan_out=transposed(base, list(fans)),
        )

    named = named_by(settings.target_modules)
    return Plan(base.model, list(fans), sites, named=named, peft=PeftFile(config))


def _targets(
    base: Base, settings: Adapter, heads: Sequence[str]
) -> tuple[list[str], Collection[str]]:
    """Targets, and those among them that are scaled at their input, as the backbone names them."""
    usual, usual_inner = _usual(base)
    kept = spared(base, heads)
    if settings.target_modules is not None:
        found = linear_targets(base.backbone, settings.target_modules, leave_out=kept)
    else:
        linear = linear_targets(base.backbone, "all-linear", leave_out=kept)
        # As PEFT does: what of its names is there.
        found = matching(linear, usual, key="")
        if not found:
            return _by_blocks(base)
    inner = settings.feedforward_modules or usual_inner
    if inner is None:
        return found, feedforward_outputs(base.backbone)
    if isinstance(inner, str):
        scaled = matching(found, inner, key="adapter.feedforward_modules")
    else:
        # PEFT asks for no dot before a feed-forward name.
        scaled = [name for name in found if name.endswith(tuple(inner))]
    if settings.feedforward_modules is not None and not scaled:
        raise ModelError(
            f"adapter.feedforward_modules {inner} matches none of the targets: {', '.join(found)}"
        )
    return found, scaled


def _usual(base: Base) -> tuple[list[str], list[str] | None]:
    """PEFT's usual targets and feed-forward modules for the model's family."""
    from peft.utils import (
        TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
        TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
    )

    family = base.backbone.config.model_type  # type: ignore[union-attr]
    return (
        TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING.get(family, []),
        TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(family),
    )


def _by_blocks(base: Base) -> tuple[list[str], list[str]]:
    """Keys, values and feed-forward outputs of a family that PEFT does not know."""
    inside = base.backbone
    inner = feedforward_outputs(inside)
    starts = tuple(f"{block}." for blocks in block_lists(inside) for block in blocks)
    attention = [
        name
        for name, module in inside.named_modules()
        if fan(module)
        and name.startswith(starts)
        and _KEYS_AND_VALUES.fullmatch(name.rpartition(".")[2])
    ]
    if not attention or not inner:
        raise ModelError(
            "adapter.method is ia3, but the model's layers of keys and values are not known; name "
            "them in adapter.target_modules, and those of the feed-forward part in "
            "adapter.feedforward_modules too"
        )
    return [*attention, *inner], inner
