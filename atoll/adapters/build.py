"""From adapter settings to a model that trains a stack of clients, probed before it is used."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from atoll.adapters.bottleneck import bottleneck_plan
from atoll.adapters.dense import linear_site
from atoll.adapters.ia3 import ia3_plan
from atoll.adapters.lora import lora_plan
from atoll.adapters.peft_tuner import first_line, tuner_plan
from atoll.adapters.plan import PeftFile, Plan, Planner
from atoll.adapters.probe import Found, batch_norm, head_layers, try_out
from atoll.adapters.stacked import StackedModel
from atoll.adapters.whole import bitfit_plan, full_plan, head_plan, layers_plan
from atoll.config.adapter import Adapter
from atoll.errors import ModelError
from atoll.models.base import Base
from atoll.models.objective import Batch

__all__ = ["Built", "build_adapter"]

_PLANNERS: Mapping[str, Planner] = {
    "bitfit": bitfit_plan,
    "bottleneck": bottleneck_plan,
    "full": full_plan,
    "ia3": ia3_plan,
    "layers": layers_plan,
    "lora": lora_plan,
    "none": head_plan,
}
"""Any other method is one of PEFT's."""

_NOTHING = {
    "bitfit": "adapter.method is bitfit, but no module of the model has a bias; use lora",
    "none": "adapter.method is none, and the model has no head that could train; use lora",
}


@dataclass(frozen=True)
class Built:
    """A model that trains, and what the probe found.

    targets: adapted modules, as the backbone names them.
    alone: why clients cannot share a forward pass (None: they can).
    peft: how PEFT writes the adapter; None where it has no such type.
    dropped: modules that a rule found and no gradient reaches.
    remarks: what PEFT warned of, for the user to know.
    """

    model: StackedModel
    targets: tuple[str, ...]
    dropped: tuple[str, ...]
    alone: str | None
    peft: PeftFile | None = None
    remarks: tuple[str, ...] = ()


def build_adapter(base: Base, settings: Adapter, probe: Batch) -> Built:
    """Put the adapter on the model; `probe` is a small batch with an even number of rows.

    Raises:
        ModelError: when nothing matches, or nothing of the adapter can train.
        ConfigError: when PEFT refuses its settings.
    """
    planner, heads = _PLANNERS.get(settings.method, tuner_plan), head_layers(base)
    idle: set[str] = set()
    while True:
        plan = planner(base, settings, heads, idle)
        _check_something(base, settings, plan, heads)
        model = _attach(base, plan, heads)
        alone = plan.alone or batch_norm(base.model)
        found = _tried(model, settings, plan, probe, clients=1 if alone else 2)
        left_out = _unreached(plan, found)
        if not left_out:
            break
        model.close()
        if plan.named is not None:
            raise ModelError(
                f"{plan.named} names {left_out[0].removeprefix(base.prefix)}, which no gradient "
                "reaches with this task and pooling; leave it out"
            )
        idle.update(left_out)
    if found.idle:
        raise ModelError(
            f"no gradient reaches {found.idle[0]} with this task and pooling, so that it would "
            f"never train; use another adapter.method than {settings.method}"
        )
    if not found.shared:
        alone = "a module of the model does not see one row for each row of the batch"
    elif found.mixes:
        alone = "what the model makes of a row depends on the rows beside it"
    model.alone = alone
    strip = len(base.prefix)
    return Built(
        model,
        tuple(name[strip:] for name in plan.targets),
        tuple(name[strip:] for name in _left_out(base, idle, found)),
        alone,
        plan.peft,
        tuple(plan.remarks),
    )


def _attach(base: Base, plan: Plan, heads: Sequence[str]) -> StackedModel:
    sites = [*plan.sites]
    for name in heads:
        layer = base.model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        sites.append(linear_site(name, layer, last=name == base.head))
    return StackedModel(plan.model, sites, own=plan.own, drops=plan.drops)


def _check_something(base: Base, settings: Adapter, plan: Plan, heads: Sequence[str]) -> None:
    """Refuse an adapter without a part."""
    if plan.targets or (plan.own is not None and plan.own.names and plan.by_value):
        return
    if settings.method == "none" and heads:
        return
    method, head = settings.method, f"only the head '{base.head}', which trains whole, or "
    key = "adapter.target_modules" if method in _PLANNERS else "adapter.config.target_modules"
    if plan.named is None:
        raise ModelError(
            _NOTHING.get(
                method,
                f"adapter.method is {method}, but the model has no layer that it could adapt"
                f"{f' beside its head {base.head}, which trains whole' if heads else ''}; use "
                f"{'none, or ' if heads else ''}full",
            )
        )
    raise ModelError(
        f"{key} names {head if heads else ''}modules that no gradient reaches, and nothing for "
        f"{method} to train; name other layers, or use another adapter.method"
    )


def _tried(
    model: StackedModel, settings: Adapter, plan: Plan, probe: Batch, *, clients: int
) -> Found:
    try:
        return try_out(model, probe, clients=clients)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        if settings.method in _PLANNERS:
            raise
        dtype = str(next(plan.model.parameters()).dtype).removeprefix("torch.")
        raise ModelError(
            f"adapter.method is {settings.method}, which PEFT could not run on this model in "
            f"{dtype}: {first_line(error)}; change adapter.config or model.dtype"
        ) from error


def _unreached(plan: Plan, found: Found) -> list[str]:
    """Targets, or single values, that no gradient reaches."""
    if plan.by_value:
        assert plan.own is not None, "only a model's own parameters are left out one by one"
        return [name for name in plan.own.names if name in found.idle]
    return [name for name in plan.targets if _owns(name, found.idle)
            and not _owns(name, found.reached)]  # fmt: skip


def _owns(module: str, names: Collection[str]) -> bool:
    """Whether one of the values is the module's; some of PEFT's are of no module."""
    return any(name.startswith(f"{module}.") for name in names)


def _left_out(base: Base, idle: Collection[str], found: Found) -> list[str]:
    """The modules of idle targets and idle values that do not train in the end."""
    modules = {name for name, _ in base.model.named_modules()}
    there = {name if name in modules else name.rpartition(".")[0] for name in idle}
    return sorted(name for name in there if not _owns(name, found.reached))
