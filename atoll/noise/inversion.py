"""Whole numbers of a tabulated distribution, by inversion of 128 secret bits each.

A draw u of 128 bits gives the first value whose cumulative probability, in units of 2⁻¹²⁸, is above
u. The second half of u is read only where the first cannot decide, which is rarer than once in
2⁴⁰ draws, so that one 64-bit word a value is all that is used, and nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from atoll.noise.stream import Stream

__all__ = ["CUT", "ONE", "Table", "draw", "located", "tabulated"]

ONE = 1 << 256
"""The largest weight: weights are whole multiples of 2⁻²⁵⁶ of it."""
CUT = ONE >> 160
"""Weights below it are left out; with at most 2²² values, what is left out weighs under 2⁻¹³⁰."""

_BITS = 128
_HALF = np.uint64


@dataclass(frozen=True)
class Table:
    """P(X < lowest + i + 1) = (high[i]·2⁶⁴ + low[i]) / 2¹²⁸; the last value has no entry."""

    lowest: int
    high: NDArray[np.uint64]
    low: NDArray[np.uint64]


def tabulated(weights: Iterable[int], lowest: int) -> Table:
    """The table of weights of neighbouring whole numbers, from `lowest` on.

    Rounding down to multiples of 2⁻¹²⁸ moves less than 2⁻¹²⁸ of probability for each value.
    """
    *sums, total = accumulate(weights)
    raw = b"".join(((each << _BITS) // total).to_bytes(16, "little") for each in sums)
    halves = np.frombuffer(raw, "<u8").astype(_HALF).reshape(-1, 2)
    return Table(lowest, halves[:, 1].copy(), halves[:, 0].copy())


def draw(table: Table, stream: Stream, count: int) -> NDArray[np.int64]:
    """Independent values of the tabulated distribution."""
    first = stream.words(count)
    places = np.searchsorted(table.high, first, side="right")
    # Where the word equals a threshold's upper half, the lower halves decide.
    undecided = np.flatnonzero(table.high.take(places - 1, mode="clip") == first)
    second = stream.words(len(undecided))
    for at, word in zip(undecided, second, strict=True):
        places[at] = located(table, int(first[at]), int(word))
    return places + table.lowest


def located(table: Table, first: int, second: int) -> int:
    """How many thresholds are at most first·2⁶⁴ + second."""
    start = int(np.searchsorted(table.high, _HALF(first), side="left"))
    end = int(np.searchsorted(table.high, _HALF(first), side="right"))
    return start + int(np.searchsorted(table.low[start:end], _HALF(second), side="right"))
