"""The parts of a server's state, and moving the values in them by name."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from atoll.core import Channel, Payload, State, Tree
from atoll.errors import ConfigError

__all__ = [
    "ADAPTER",
    "HEAD",
    "MOMENTS",
    "SQUARES",
    "above_zero",
    "added",
    "broadcast",
    "from_zero_below_one",
    "moved",
    "scaled",
    "with_part",
]

ADAPTER, HEAD = "adapter", "head"
MOMENTS, SQUARES = "moments", "squares"


def broadcast(state: State, client: str) -> Payload:
    """The adapter and the head, the same to every client."""
    return {part: Channel(state[part]) for part in (ADAPTER, HEAD) if part in state}


def with_part(state: State, part: str, *, fill: float = 0.0) -> State:
    """State with a value beside each of adapter and head; those that are there stay."""
    kept = state.get(part, {})
    values = {name: value for tree in _trees(state) for name, value in tree.items()}
    new = {
        name: torch.full_like(value, fill, dtype=torch.promote_types(value.dtype, torch.float32))
        for name, value in values.items()
        if name not in kept
    }
    return {**state, part: {**kept, **new}} if new or part not in state else state


def moved(state: State, update: Tree, step: Callable[[str, Tensor], Tensor]) -> State:
    """State where value `name` is w + step(name, update) for each name of `update`.

    Names that are not in `update` are held fixed; every other part passes through. What `step`
    gives is used up: it may be the update itself.
    """
    names = {name for tree in _trees(state) for name in tree}
    assert update.keys() <= names, f"no part holds {sorted(update.keys() - names)}"
    parts = {
        part: {
            name: added(step(name, update[name]), value).to(value.dtype)
            if name in update
            else value
            for name, value in state[part].items()
        }
        for part in (ADAPTER, HEAD)
        if part in state
    }
    return {**state, **parts}


def added(way: Tensor, value: Tensor) -> Tensor:
    """way + value, in the memory of `way` where that is whole, and precise enough for both."""
    enough = way.dtype == torch.promote_types(way.dtype, value.dtype)
    return way.add_(value) if enough and way.is_contiguous() else way + value


def scaled(way: Tensor, factor: float) -> Tensor:
    """factor · way, in the memory of `way` where that is whole: one number may stand for all."""
    own = way.is_contiguous() and way.is_floating_point()
    return way.mul_(factor) if own else way * factor


def above_zero(value: float, *, name: str, server: str) -> None:
    """Refuse `value` unless it is a finite number above 0."""
    if not 0 < value < math.inf:
        raise ConfigError(f"server '{server}': {name} is {value}; give a number above 0")


def from_zero_below_one(value: float, *, name: str, server: str) -> None:
    """Refuse `value` outside [0, 1)."""
    if not 0 <= value < 1:
        raise ConfigError(f"server '{server}': {name} is {value}; give a number from 0 to below 1")


def _trees(state: State) -> list[Tree]:
    return [state[part] for part in (ADAPTER, HEAD) if part in state]
