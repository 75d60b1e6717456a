"""PEFT's own adapters, one client at a time: PEFT makes the modules, our values run through them.

PEFT changes a model in place and keeps state in it. Here it changes a copy of the modules that
shares every weight with the base, which therefore stays as it was.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from atoll import rng
from atoll.adapters.adalora import orthogonality
from atoll.adapters.dense import precise
from atoll.adapters.own import Own
from atoll.adapters.plan import INSIDE, PeftFile, Plan
from atoll.config.adapter import Adapter
from atoll.config.peft_fields import peft_config
from atoll.errors import ConfigError, ModelError
from atoll.models.base import Base
from atoll.tree import Tree

__all__ = ["first_line", "tuner_plan"]

_NOISE = (
    "fan_in_fan_out is set to False", "Failed to load the CUDA extension",
    "Sparse invariant checks", "Unsupported layer type",
)  # fmt: skip


@dataclass(frozen=True)
class _Injected:
    """A copy of the model's modules with PEFT's among them.

    names: of values -> of parameters.   keys: in PEFT's file -> of values.
    fixed: what else the file holds.   new: PEFT's modules.   targets: as the backbone names them.
    remarks: what PEFT warned of.
    """

    model: nn.Module
    config: Any
    names: dict[str, str]
    keys: dict[str, str]
    fixed: Tree
    new: tuple[nn.Module, ...]
    targets: tuple[str, ...]
    remarks: tuple[str, ...]


def tuner_plan(base: Base, settings: Adapter, heads: Sequence[str], idle: Collection[str]) -> Plan:
    """The adapter of PEFT that the method names, but not on heads.

    Raises:
        ConfigError, ModelError: when PEFT cannot adapt the model so, or not for several clients.
    """
    given = settings.config.get("target_modules")
    config = peft_config(settings.method, settings.config)
    fields = {field.name for field in dataclasses.fields(config)}
    if heads and not base.prefix and "modules_to_save" not in fields:
        raise ConfigError(
            f"adapter.method is {settings.method}, beside which PEFT saves no head of the model's "
            "own class; set model.pooling to mean or cls, or use another method"
        )
    before = _weights(base)
    made = _inject(base, settings.method, config, seed=0)
    apart = {name.removeprefix(base.prefix) for name in (*heads, *idle)}
    kept = [name for name in made.targets if name not in apart]
    if len(kept) < len(made.targets) and kept:
        config.target_modules = set(kept)
        made = _inject(base, settings.method, config, seed=0)
    if _weights(base) != before:
        raise ModelError(
            f"adapter.config: with it, {settings.method} of PEFT changes the weights of the base "
            "itself, which all clients share; leave its start at PEFT's default"
        )

    def init(seed: int) -> Tree:
        again = _inject(base, settings.method, config, seed=seed)
        odd = [key for key, value in made.fixed.items() if not torch.equal(value, again.fixed[key])]
        if odd:
            raise ModelError(
                f"adapter.method is {settings.method}, which draws {odd[0]} anew wherever it is "
                "made, so that clients would not share it; give it a seed in adapter.config"
            )
        return {
            name: precise(again.model.get_parameter(there)) for name, there in again.names.items()
        }

    targets = [base.prefix + name for name in made.targets]
    return Plan(
        made.model,
        targets if kept else [],
        own=Own(
            made.names,
            init,
            frozenset(targets),
            noisy=made.new,
            penalty=orthogonality(config.orth_reg_weight) if settings.method == "adalora" else None,
        ),
        named=None if given in (None, "all-linear") else "adapter.config.target_modules",
        alone=f"{settings.method} runs in PEFT's own modules, which hold one client's values",
        peft=PeftFile(lambda: copy.deepcopy(made.config), made.keys, made.fixed),
        remarks=made.remarks,
    )


def _weights(base: Base) -> list[float]:
    """What tells whether a weight of the base was changed, by whatever way."""
    return [
        torch.hash_tensor(value).view(torch.int64).item()
        for value in base.model.state_dict().values()
        # Quantised weights are tensors of another kind, which PEFT leaves alone.
        if type(value) is Tensor and value.is_floating_point() and value.numel()
    ]


def _inject(base: Base, method: str, config: Any, *, seed: int) -> _Injected:
    """PEFT's modules in a new copy of the base's, their first values drawn from the seed."""
    from peft import get_peft_model

    shared: list[Any] = [*base.model.parameters(), *base.model.buffers()]
    # Layers of bitsandbytes take their weights from the parameter into a state, once.
    shared += [vars(module)["state"] for module in base.model.modules() if "state" in vars(module)]
    model = copy.deepcopy(base.model, {id(one): one for one in shared})
    old = {id(module) for module in model.modules()}
    config = copy.deepcopy(config)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.manual_seed(rng.derive(seed, "adapter", method))
        try:
            wrapped = get_peft_model(model.get_submodule(base.prefix.rstrip(".")), config)
        except Exception as error:  # Whatever PEFT makes of a model and settings that do not fit.
            hint = "see adapter.config"
            if config.target_modules is None:
                hint = "name the modules in adapter.config.target_modules"
            raise ConfigError(
                f"adapter.method is {method}, but PEFT cannot adapt {base.source.hub_id} so: "
                f"{first_line(error)}; {hint}"
            ) from error
    names, keys, fixed = _mapped(base, method, model, wrapped)
    model.requires_grad_(False).eval()
    new = tuple(module for module in model.modules() if id(module) not in old)
    targets = tuple(wrapped.base_model.targeted_module_names)
    remarks = tuple(dict.fromkeys(str(one.message).splitlines()[0] for one in caught if _told(one)))
    config = wrapped.peft_config["default"]
    return _Injected(model, config, names, keys, fixed, new, targets, remarks)


def _told(warning: warnings.WarningMessage) -> bool:
    """Whether a warning is about the settings, and not about PEFT's own code or this machine."""
    if not issubclass(warning.category, RuntimeWarning | UserWarning):
        return False
    return not str(warning.message).startswith(_NOISE)


def _mapped(
    base: Base, method: str, model: nn.Module, wrapped: Any
) -> tuple[dict[str, str], dict[str, str], Tree]:
    """Values by what PEFT's file calls them; parameters and what is saved are the same objects."""
    from peft import get_peft_model_state_dict

    saved: dict[str, Tensor] = get_peft_model_state_dict(
        wrapped, state_dict=wrapped.state_dict(keep_vars=True), save_embedding_layers=False
    )
    places = {id(value): name for name, value in model.named_parameters() if value.requires_grad}
    names: dict[str, str] = {}
    keys: dict[str, str] = {}
    fixed: Tree = {}
    first: dict[int, str] = {}
    for key, value in saved.items():
        if id(value) not in places:
            fixed[key] = value.detach().cpu()
            continue
        inside = key.startswith(INSIDE)
        own = base.prefix + key.removeprefix(INSIDE) if inside else key
        # Lily shares values among layers, and its file holds them at each.
        keys[key] = first.setdefault(id(value), own)
        names[keys[key]] = places[id(value)]
    trains = {id(p): name for name, p in wrapped.named_parameters() if p.requires_grad}
    odd = [name for one, name in trains.items() if one not in first]
    if odd:
        raise ModelError(
            f"adapter.method is {method}, which with these settings keeps {odd[0]} in another form "
            "in PEFT's file: such values cannot be sent and averaged"
        )
    return names, keys, fixed


def first_line(error: Exception) -> str:
    """The beginning of what an error of PEFT's says, as a part of a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
