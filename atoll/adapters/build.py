"""From adapter settings to a model that trains a stack of clients, probed before it is used."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from atoll.adapters.dense import bias_site, linear_site
from atoll.adapters.lora import LoraScale, lora_site
from atoll.adapters.site import Frame, Site, fan
from atoll.adapters.stacked import StackedModel
from atoll.adapters.targets import bias_modules, linear_targets
from atoll.config.adapter import Adapter
from atoll.errors import ModelError
from atoll.models.base import Base
from atoll.models.objective import Batch

__all__ = ["Built", "build_adapter"]

_NOTHING = {
    "lora": "adapter.target_modules names only the head '{head}', which trains whole and not by "
    "LoRA; name other layers, or set adapter.method to none",
    "bitfit": "adapter.method is bitfit, but no module of the model has a bias; use lora",
    "none": "adapter.method is none, and the model has no head that could train; use lora",
}


@dataclass(frozen=True)
class Built:
    """A model that trains, and what the probe found.

    targets: adapted modules, as the backbone names them.
    alone: why clients cannot share a forward pass (None: they can).
    transposed: whether the targets store their weights as GPT-2 does.
    dropped: targets of `all-linear`, or modules of a full model, that no gradient reaches.
    """

    model: StackedModel
    targets: tuple[str, ...]
    dropped: tuple[str, ...]
    alone: str | None
    transposed: bool = False


def build_adapter(base: Base, settings: Adapter, probe: Batch) -> Built:
    """Put the adapter on the model; `probe` is a small batch with an even number of rows.

    Raises:
        ModelError: when nothing matches, or nothing of the adapter can train.
    """
    heads = _heads(base)
    whole = settings.method == "full"
    targets = _targets(base, settings, heads)
    if not whole and not targets and (settings.method != "none" or not heads):
        raise ModelError(_NOTHING[settings.method].format(head=base.head))
    model = _attach(base, settings, targets, heads)
    alone = "a full model trains one client at a time" if whole else _batch_norm(base.model)
    reached, shared = _probe(model, probe, clients=1 if alone else 2)
    if whole:
        idle = sorted(model.init(0).keys() - reached)
        dropped = sorted({name.rpartition(".")[0] for name in idle})
    else:
        dropped = idle = _idle_targets(base, settings, targets, reached)
    if idle:
        model.close()
        targets = [name for name in targets if name not in idle]
        model = _attach(base, settings, targets, heads, leave_out=idle if whole else ())
    if not shared:
        alone = "a module of the model does not see one row for each row of the batch"
    strip = len(base.prefix)
    return Built(
        model,
        tuple(name[strip:] for name in targets),
        tuple(name[strip:] for name in dropped),
        alone,
        any(isinstance(base.model.get_submodule(name), Conv1D) for name in targets),
    )


def _idle_targets(
    base: Base, settings: Adapter, targets: Sequence[str], reached: set[str]
) -> list[str]:
    """Targets that no gradient reaches: `all-linear` does without them, a name may not."""
    idle = [name for name in targets if not any(key.startswith(f"{name}.") for key in reached)]
    if idle and settings.target_modules != "all-linear" and settings.method == "lora":
        raise ModelError(
            f"adapter.target_modules names {idle[0].removeprefix(base.prefix)}, which no gradient "
            "reaches with this task and pooling; leave it out"
        )
    return idle


def _heads(base: Base) -> list[str]:
    """Linear layers that train whole: the model's head, and layers that its checkpoint lacked."""
    if base.head is None:
        return []
    top, drawn = base.head.split(".")[0], {name.rpartition(".")[0] for name in base.fresh}
    return [
        name
        for name, module in base.model.named_modules()
        if isinstance(module, nn.Linear) and (name.split(".")[0] == top or name in drawn)
    ]


def _targets(base: Base, settings: Adapter, heads: Sequence[str]) -> list[str]:
    output = base.backbone.get_output_embeddings() if base.head is None else None  # type: ignore[operator]
    leave_out = [name for name, module in base.model.named_modules() if module is output]
    if settings.method == "bitfit":
        return bias_modules(base.model, leave_out=[*heads, *leave_out])
    if settings.method != "lora":
        return []
    inside = base.backbone
    wanted = settings.target_modules
    found = linear_targets(
        inside, wanted if isinstance(wanted, str) else list(wanted), leave_out=[*heads, *leave_out]
    )
    return [base.prefix + name for name in found if base.prefix + name not in heads]


def _attach(
    base: Base,
    settings: Adapter,
    targets: Sequence[str],
    heads: Sequence[str],
    leave_out: Collection[str] = (),
) -> StackedModel:
    scale = LoraScale(settings.lora_alpha, settings.use_rslora)
    sites: list[Site] = []
    for name in targets:
        module = base.model.get_submodule(name)
        if settings.method == "bitfit":
            sites.append(bias_site(name, module))
            continue
        shape = fan(module)
        assert shape is not None, f"{name} is not linear"
        sites.append(
            lora_site(name, shape, r=settings.r, scale=scale, dropout=settings.lora_dropout)
        )
    for name in heads:
        layer = base.model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        sites.append(linear_site(name, layer, last=name == base.head))
    drops = settings.method == "lora" and settings.lora_dropout > 0
    whole = settings.method == "full"
    return StackedModel(base.model, sites, whole=whole, drops=drops, leave_out=leave_out)


def _batch_norm(model: nn.Module) -> str | None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            return f"{name} normalises over the batch, which clients must not share"
    return None


def _probe(model: StackedModel, batch: Batch, *, clients: int) -> tuple[set[str], bool]:
    """Values that a gradient reaches, and whether all sites see whole rows of the batch."""
    rows = batch.target.shape[0]
    seen: list[bool] = []

    def look(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(args[0].shape[0] == rows)

    layers = [model.model.get_submodule(site.module) for site in model.sites]
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
    return {name for name, value in values.items() if value.grad is not None}, all(seen)
