"""What local work needs, wherever it runs: a model, an objective, rows and settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atoll.adapters.site import Frame
from atoll.adapters.stacked import StackedModel
from atoll.config.sections import Train
from atoll.core import Payload, State
from atoll.local.per_example import PerExample
from atoll.local.prefix import Prefix
from atoll.models.objective import Batch, Example, Objective
from atoll.tree import Tree

__all__ = ["Bench", "broadcast_values", "model_values", "trained_values"]


@dataclass(frozen=True)
class Bench:
    """A place where clients' work is done.

    examples: (client, "train" or "test") -> encoded rows.
    group_size: clients that train in one forward pass (1: one after another).
    train_head: whether local training moves the head; else it is held as it was sent.
    num_rounds: the horizon of learning-rate schedules.
    prefix: what the frozen blocks below the trained ones make of rows; None: they are run.
    private: how clients' work hides single rows, whatever the algorithm; None: it does not.
    """

    model: StackedModel
    objective: Objective
    examples: Callable[[str, str], Sequence[Example]]
    settings: Train
    head: str | None
    train_head: bool
    group_size: int
    num_rounds: int
    device: torch.device
    prefix: Prefix | None = None
    private: PerExample | None = None

    def outputs(
        self, values: Tree, rows: Sequence[Example | None], batch: Batch, frame: Frame
    ) -> Tensor:
        """What the model makes of `rows` (None: padding), which `batch` holds, under `values`."""
        if self.prefix is None:
            return self.model.forward(values, batch.inputs, frame)
        return self.prefix.forward(values, rows, batch, frame)


def broadcast_values(payload: Payload) -> Tree:
    """Everything that the model needs of a broadcast: adapter and head values."""
    values: Tree = {}
    for part in ("adapter", "head"):
        if part in payload:
            values |= payload[part].tree
    return values


def trained_values(bench: Bench, payload: Payload) -> Tree:
    """The values that local training moves."""
    parts = ("adapter", "head") if bench.train_head else ("adapter",)
    return {
        name: value
        for part in parts
        if part in payload
        # Sorted, so that a norm adds up alike whether the tree was made or read from a file.
        for name, value in sorted(payload[part].tree.items())
    }


def model_values(state: State) -> Tree:
    """What the model needs of a server's state: adapter and head values."""
    return {**state.get("adapter", {}), **state.get("head", {})}
