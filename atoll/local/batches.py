"""Which rows go into which step: shuffled, bucketed by length, the same in a stack and alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from atoll import rng
from atoll.core import Context

__all__ = ["plan_steps"]

WINDOW = 8
"""Batches that are sorted by length together: enough to save padding, few enough to stay random."""


def plan_steps(
    lengths: Sequence[int], context: Context, *, batch_size: int, epochs: float
) -> list[list[int]]:
    """Row indices of each step of one client; `epochs` may be fractional.

    Rows are shuffled for each (client, round, epoch). The order of batches within a window does
    not depend on the client, so that clients of one stack meet rows of similar length. Where rows
    are left over, each is as likely as any other to be in the smaller batch (it weighs more there).
    """
    steps: list[list[int]] = []
    per_epoch = math.ceil(len(lengths) / batch_size)
    wanted = math.ceil(per_epoch * epochs - 1e-6)  # 29 steps of 7 an epoch are 29.000000000000004
    seed, place = context.seed, (context.run, context.round)
    epoch = 0
    while len(steps) < wanted:
        shuffle = rng.numpy_generator(seed, "rows", *place, context.client, epoch)
        order = rng.numpy_generator(seed, "batches", *place, epoch)
        rows = shuffle.permutation(len(lengths)).tolist()
        for start in range(0, len(rows), WINDOW * batch_size):
            window = rows[start : start + WINDOW * batch_size]
            window.sort(key=lambda row: -lengths[row])
            batches = _batches(window, batch_size, shuffle)
            steps += [batches[i] for i in order.permutation(WINDOW) if i < len(batches)]
        epoch += 1
    return steps[:wanted]


def _batches(window: list[int], size: int, draw: np.random.Generator) -> list[list[int]]:
    """Cut a sorted window into batches, in order; a smaller one is cut at a place that is drawn."""
    count, left_over = len(window), len(window) % size
    if count <= size or not left_over:
        return [window[i : i + size] for i in range(0, count, size)]
    # As on a ring, where every row has the same number of cuts that hold it.
    place = int(draw.integers(count))
    small = [window[(place + i) % count] for i in range(left_over)]
    rest = [row for row in window if row not in small]
    batches = [rest[i : i + size] for i in range(0, len(rest), size)]
    batches.insert(place // size if place + left_over <= count else 0, small)
    return batches
