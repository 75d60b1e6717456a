"""How well scores tell who was there from who was not; a higher score says "there"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Told", "auc", "bootstrapped", "tpr_at"]

Scores = NDArray[np.float64]
LEVEL = 0.95


@dataclass(frozen=True)
class Told:
    """A number, and the ends of its 95 % interval (None: too few rows for one)."""

    value: float
    interval: tuple[float, float] | None = None


def auc(there: Sequence[float] | Scores, others: Sequence[float] | Scores) -> float:
    """The chance that one who was there scores above one who was not; a tie counts half."""
    ours, ordered = np.asarray(there), np.sort(np.asarray(others))
    below = np.searchsorted(ordered, ours, side="left")
    upto = np.searchsorted(ordered, ours, side="right")
    return float((below + upto).mean() / (2 * len(ordered)))


def tpr_at(
    there: Sequence[float] | Scores, others: Sequence[float] | Scores, *, fpr: float
) -> float:
    """The share of those who were there above a threshold that at most `fpr` of the others pass."""
    ordered = np.sort(np.asarray(others))
    passing = int(fpr * len(ordered) + 1e-9)
    return float((np.asarray(there) > ordered[len(ordered) - 1 - passing]).mean())


def bootstrapped(
    measure: Callable[[Scores, Scores], float],
    there: Scores,
    others: Scores,
    generator: np.random.Generator,
    *,
    resamples: int = 1000,
) -> Told:
    """A measure, with the percentiles of both sets drawn again with replacement.

    Where a set has a single score, there is no interval: drawn again, it is itself.
    """
    value = measure(there, others)
    if min(len(there), len(others)) < 2:
        return Told(value)
    drawn = [
        measure(
            there[generator.integers(len(there), size=len(there))],
            others[generator.integers(len(others), size=len(others))],
        )
        for _ in range(resamples)
    ]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Told(value, (float(low), float(high)))
