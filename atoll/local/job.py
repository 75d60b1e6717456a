"""What one client does in a stack, and how an algorithm bends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from atoll import rng
from atoll.core import Request
from atoll.models.objective import Example
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
    """

    proximal: float = 0.0
    offset: Callable[[Request], Tree] | None = None
    epochs: float | None = None
    mean_gradient: bool = False


@dataclass(frozen=True)
class Job:
    """One client's work in a stack: its request, its rows, and the rows of each step."""

    request: Request
    examples: Sequence[Example]
    steps: list[list[int]]

    def rows(self, number: int, redraw: Redraw | None) -> list[Example]:
        """The rows of one step, made anew where the task draws them."""
        rows = self.steps[number]
        if redraw is None:
            return [self.examples[row] for row in rows]
        at = self.request.context
        place = (at.run, at.round, at.client, number)
        return [
            redraw(self.examples[row], rng.numpy_generator(at.seed, "redraw", *place, i))
            for i, row in enumerate(rows)
        ]
