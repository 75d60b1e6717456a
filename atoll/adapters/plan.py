"""What a method of adapting puts where, before it is tried."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from atoll.adapters.own import Own
from atoll.adapters.site import Site
from atoll.config.adapter import Adapter
from atoll.models.base import Base
from atoll.tree import Tree

__all__ = ["INSIDE", "PeftFile", "Plan", "Planner", "first_names", "named_by"]

INSIDE = "base_model.model."
"""What stands before a model's own names in a file of PEFT's."""


@dataclass(frozen=True)
class PeftFile:
    """How PEFT writes an adapter down.

    config: makes PEFT's configuration, which does not know the base model and the task yet.
    keys: what PEFT's file calls values -> their names, where that does not follow from these; one
        value may stand in it several times.
    fixed: what the file holds beside the values, the same at every client.
    """

    config: Callable[[], Any]
    keys: Mapping[str, str] = field(default_factory=dict)
    fixed: Tree = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The parts of a model that would train.

    model: the base's model, or a copy of its modules over the same weights.
    targets: adapted modules, as `model` names them.
    named: the key of the experiment file that names the targets: one that cannot train is then
        refused; None where a rule found them.
    by_value: whether single values may be left out, and not only whole targets.
    alone: why clients cannot share a forward pass, as far as the method goes.
    peft: None where PEFT has no such type.
    remarks: what PEFT warned of, for the user to know.
    """

    model: nn.Module
    targets: Sequence[str] = ()
    sites: Sequence[Site] = ()
    own: Own | None = None
    drops: bool = False
    named: str | None = None
    by_value: bool = False
    alone: str | None = None
    peft: PeftFile | None = None
    remarks: Sequence[str] = ()


Planner = Callable[[Base, Adapter, Sequence[str], Collection[str]], Plan]
"""(base, settings, heads, idle) -> the plan without what is idle; heads train whole beside it."""


def first_names(names: Sequence[str], prefix: str) -> list[str]:
    """Names as the backbone has them, of modules that are inside it."""
    return [name.removeprefix(prefix) for name in names]


def named_by(rule: str | Sequence[str] | None) -> str | None:
    """The key that names the targets, where the file names them one by one."""
    return None if rule in (None, "all-linear") else "adapter.target_modules"
