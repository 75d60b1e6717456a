"""What one client does in a stack, and how an algorithm bends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from atoll import rng
from atoll.accounting import Release
from atoll.core import Request
from atoll.local.per_example import PerExample
from atoll.models.objective import Example
from atoll.noise import derive
from atoll.tree import Tree

__all__ = ["Job", "LocalRule", "Redraw"]

Redraw = Callable[[Example, np.random.Generator], Example]


@dataclass(frozen=True)
class LocalRule:
    """How an algorithm bends local training.

    proximal: μ of (μ/2)·‖w − w_start‖², added to the loss.
    offset: a tree that is added to every gradient after it was clipped (SCAFFOLD's c − c_k).
    epochs: passes over the client's rows, instead of the settings'.
    mean_gradient: whether a result tells the mean of its steps' gradients (memory and time).
    private: how single rows are hidden; gradients are then noisy before anything else is added to
        them or made of them. None: they are not.
    """

    proximal: float = 0.0
    offset: Callable[[Request], Tree] | None = None
    epochs: float | None = None
    mean_gradient: bool = False
    private: PerExample | None = None


@dataclass(frozen=True)
class Job:
    """One client's work in a stack: its request, its rows, and the rows of each step.

    spends: what its rows pay, where they are hidden.   expected: how many of them a step then has
        on average.   key: the secret that hides them.
    """

    request: Request
    examples: Sequence[Example]
    steps: list[list[int]]
    spends: Release | None = None
    expected: float = 0.0
    key: bytes = field(default=b"", repr=False)

    @property
    def seed(self) -> int:
        """Of what training draws; a secret one where rows are hidden."""
        if self.spends is None:
            return self.request.context.seed
        return int.from_bytes(derive(self.key, "draws")[:8], "little")

    def rows(self, number: int, redraw: Redraw | None) -> list[Example]:
        """The rows of one step, made anew where the task draws them."""
        rows = self.steps[number]
        if redraw is None:
            return [self.examples[row] for row in rows]
        at = self.request.context
        place = (at.run, at.round, at.client, number)
        # What is drawn for a hidden row must not move when another one joins its batch.
        marks = range(len(rows)) if self.spends is None else rows
        return [
            redraw(self.examples[row], rng.numpy_generator(self.seed, "redraw", *place, mark))
            for row, mark in zip(rows, marks, strict=True)
        ]
