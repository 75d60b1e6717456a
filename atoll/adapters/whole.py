"""Parts of the model itself that train: its last blocks, its biases, or all of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from torch import nn

from atoll.adapters.blocks import block_lists
from atoll.adapters.dense import bias_site, linear_site, norm_site, precise
from atoll.adapters.own import Own
from atoll.adapters.plan import Plan
from atoll.adapters.site import Site, fan
from atoll.adapters.targets import bias_modules, output_embedding
from atoll.config.adapter import Adapter
from atoll.errors import ModelError
from atoll.models.base import Base
from atoll.tree import Tree

__all__ = ["bitfit_plan", "full_plan", "head_plan", "layers_plan"]


def full_plan(base: Base, settings: Adapter, heads: Sequence[str], idle: Collection[str]) -> Plan:
    """Every parameter, one client at a time."""
    at_heads = tuple(f"{name}." for name in heads)
    names = [
        name
        for name, _ in base.model.named_parameters()
        if name not in idle and not (at_heads and name.startswith(at_heads))
    ]
    _check_plain(base.model, names)
    return Plan(
        base.model,
        own=_own(base.model, names, noisy=tuple(base.model.modules())),
        by_value=True,
        alone="a full model trains one client at a time",
    )


def head_plan(base: Base, settings: Adapter, heads: Sequence[str], idle: Collection[str]) -> Plan:
    """Nothing beside the head."""
    return Plan(base.model)


def bitfit_plan(base: Base, settings: Adapter, heads: Sequence[str], idle: Collection[str]) -> Plan:
    """Every bias."""
    kept = {*heads, *output_embedding(base), *idle}
    targets = bias_modules(base.model, leave_out=list(kept))
    sites = [bias_site(name, base.model.get_submodule(name)) for name in targets]
    return Plan(base.model, targets, sites)


def layers_plan(base: Base, settings: Adapter, heads: Sequence[str], idle: Collection[str]) -> Plan:
    """The last blocks whole, in a stack of clients where each of their modules can be stacked.

    Raises:
        ModelError: when the model has no blocks, or fewer.
    """
    blocks = _last_blocks(base, settings.num_layers)
    modules = [
        name
        for block in blocks
        for name, module in base.model.get_submodule(block).named_modules(prefix=block)
        if any(True for _ in module.parameters(recurse=False)) and name not in heads
    ]
    names = [
        f"{name}.{key}"
        for name in modules
        for key, _ in base.model.get_submodule(name).named_parameters(recurse=False)
    ]
    _check_plain(base.model, names)
    sites = [_site(name, base.model.get_submodule(name)) for name in modules]
    odd = [name for name, site in zip(modules, sites, strict=True) if site is None]
    # A module that no gradient reached by its hook may be read another way.
    odd += [name for name in modules if name in idle]
    if not odd:
        return Plan(base.model, modules, [site for site in sites if site is not None])
    return Plan(
        base.model,
        modules,
        own=_own(base.model, [name for name in names if name not in idle]),
        by_value=True,
        alone=f"{odd[0]} cannot hold values of several clients",
    )


def _check_plain(model: nn.Module, names: Sequence[str]) -> None:
    """Refuse weights that are whole numbers and scales."""
    for name in names:
        if type(model.get_parameter(name)) is not nn.Parameter:
            raise ModelError(
                f"{name} is quantised, and such weights do not train themselves; use an adapter "
                "(adapter.method: lora), or load the model as it is (model.load_in_8bit: false)"
            )


def _last_blocks(base: Base, count: int) -> Iterator[str]:
    lists = block_lists(base.backbone)
    if not lists:
        raise ModelError(
            "adapter.method is layers, but the model has no list of blocks; use lora or full"
        )
    for blocks in lists:
        if count > len(blocks):
            raise ModelError(
                f"adapter.num_layers is {count}, but the model has {len(blocks)} blocks "
                f"({blocks[0]} to {blocks[-1]}); use at most {len(blocks)}, or adapter.method: full"
            )
        yield from (base.prefix + block for block in blocks[-count:])


def _site(name: str, module: nn.Module) -> Site | None:
    return linear_site(name, module, last=False) if fan(module) else norm_site(name, module)


def _own(model: nn.Module, names: Sequence[str], *, noisy: tuple[nn.Module, ...] = ()) -> Own:
    """Parameters under their own names; the rest of the model then takes their precision."""

    def init(seed: int) -> Tree:
        return {name: precise(model.get_parameter(name)) for name in names}

    readers = frozenset(name.rpartition(".")[0] for name in names)
    return Own(dict(zip(names, names, strict=True)), init, readers, casts=True, noisy=noisy)
