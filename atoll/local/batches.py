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
    not depend on the client, so that clients of one stack meet rows of similar length.
    """
    steps: list[list[int]] = []
    per_epoch = math.ceil(len(lengths) / batch_size)
    wanted = math.ceil(per_epoch * epochs - 1e-6)  # 29 steps of 7 an epoch are 29.000000000000004
    seed, place = context.seed, (context.run, context.round)
    epoch = 0
    while len(steps) < wanted:
        shuffle = rng.numpy_generator(seed, "rows", *place, context.client, epoch)
        order = rng.numpy_generator(seed, "batches", *place, epoch)
        steps += _epoch(shuffle.permutation(len(lengths)), lengths, batch_size, order)
        epoch += 1
    return steps[:wanted]


def _epoch(
    rows: np.ndarray, lengths: Sequence[int], batch_size: int, order: np.random.Generator
) -> list[list[int]]:
    steps: list[list[int]] = []
    for start in range(0, len(rows), WINDOW * batch_size):
        window = sorted(
            rows[start : start + WINDOW * batch_size].tolist(), key=lambda row: -lengths[row]
        )
        chunks = [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
        steps += [chunks[i] for i in order.permutation(WINDOW) if i < len(chunks)]
    return steps
