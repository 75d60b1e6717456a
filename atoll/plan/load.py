"""How much there is to compute: the passes of training and evaluation, known before they run.

Which rows are in which step has an address, so that every padded batch of a run is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from atoll.core import Context
from atoll.local.batches import plan_steps
from atoll.local.bench import Bench

__all__ = ["Batch", "Load", "forward_load", "step_load", "training_load"]

VISITS = 1_000_000
"""Rows of training that are looked at one by one; of more, evenly chosen ones stand for all."""


@dataclass(frozen=True)
class Batch:
    """One forward pass: clients that share it, their rows with padding ones, and the length that
    rows are padded to."""

    clients: int = 0
    rows: int = 0
    length: int = 0

    @property
    def cells(self) -> int:
        """Rows times length."""
        return self.rows * self.length


@dataclass(frozen=True)
class Load:
    """Sums over passes, and the largest of them; cells: padded rows times their length.

    steps: optimiser steps, of all clients.
    """

    passes: float = 0.0
    clients: float = 0.0
    cells: float = 0.0
    steps: float = 0.0
    largest: Batch = Batch()

    def __add__(self, other: Load) -> Load:
        """Both loads."""
        return Load(
            self.passes + other.passes,
            self.clients + other.clients,
            self.cells + other.cells,
            self.steps + other.steps,
            max(self.largest, other.largest, key=lambda batch: batch.cells),
        )

    def times(self, factor: float) -> Load:
        """The load so many times."""
        return Load(
            self.passes * factor, self.clients * factor, self.cells * factor,
            self.steps * factor, self.largest,
        )  # fmt: skip


def training_load(
    bench: Bench,
    contexts: Sequence[Context],
    lengths: Sequence[Sequence[int]],
    *,
    epochs: float | None = None,
) -> Load:
    """Of clients that are asked to train together; `lengths`: of each one's encoded rows.

    epochs: passes over the rows, instead of the settings'.
    """
    settings = bench.settings
    size = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    jobs, most = [], 0.0
    for context, own in zip(contexts, lengths, strict=True):
        passes = float(settings.num_train_epochs) if epochs is None else epochs
        if settings.max_steps is not None and epochs is None:
            passes = settings.max_steps / -(-len(own) // size)
        most = max(most, passes)
        jobs.append((context, own, passes))
    # Later epochs are as the first ones: rows are shuffled anew, and batched in the same way.
    share = min(1.0, VISITS / max(sum(len(own) * passes for _, own, passes in jobs), 1.0))
    planned = [
        (own, plan_steps(own, context, batch_size=size, epochs=max(passes * share, 1e-3)))
        for context, own, passes in jobs
    ]
    if bench.group_size > 1:
        planned.sort(key=lambda job: -len(job[1]))
    found = Load()
    for start in range(0, len(planned), bench.group_size):
        found += _stack(bench, planned[start : start + bench.group_size])
    exact = sum(passes * -(-len(own) // size) for _, own, passes in jobs)
    return found if share == 1.0 else found.times(exact / max(found.steps, 1.0))


def _stack(bench: Bench, jobs: Sequence[tuple[Sequence[int], list[list[int]]]]) -> Load:
    """Clients of one stack: those that have steps left go on together."""
    found = Load()
    for number in range(len(jobs[0][1])):
        chosen = [[own[row] for row in steps[number]] for own, steps in jobs if len(steps) > number]
        found += step_load(chosen, bench.settings.per_device_train_batch_size)
    return found


def step_load(chosen: Sequence[Sequence[int]], size: int) -> Load:
    """One step of clients whose rows have these lengths, in micro-batches of `size` rows."""
    passes = cells = 0
    largest = Batch()
    for start in range(0, max(map(len, chosen)), size):
        micro = [own[start : start + size] for own in chosen]
        length = max(max(own, default=0) for own in micro)
        batch = Batch(len(micro), len(micro) * max(map(len, micro)), max(length, 1))
        largest = max(largest, batch, key=lambda one: one.cells)
        passes, cells = passes + 1, cells + batch.cells
    return Load(passes, passes * len(chosen), cells, len(chosen), largest)


def forward_load(lengths: Sequence[int], size: int) -> Load:
    """A set of rows that is run through the model without training, in batches of `size`."""
    order, found = sorted(lengths), Load()
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        batch = Batch(1, len(rows), max(rows[-1], 1))
        found += Load(1, 1, batch.cells, 0, batch)
    return found
