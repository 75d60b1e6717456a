"""Mean and deviation of numbers to predict, from sums that clients can send instead of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atoll.data.tables import Row
from atoll.errors import DataError

__all__ = ["Moments", "moments_of", "number_of"]

LARGEST = 1e100
SAME = 1e-12  # numbers that differ by a smaller share of their mean differ by rounding


@dataclass(frozen=True)
class Moments:
    """How many numbers there are, their mean, and Σ (y − mean)²."""

    count: int = 0
    mean: float = 0.0
    square: float = 0.0

    def union(self, other: Moments) -> Moments:
        """The moments of both sets (Chan, Golub, LeVeque 1979, eq. 2.1)."""
        count = self.count + other.count
        if not count:
            return self
        apart = other.mean - self.mean
        mean = self.mean + apart * other.count / count
        cross = apart * apart * self.count * other.count / count
        return Moments(count, mean, self.square + other.square + cross)

    @property
    def deviation(self) -> float:
        """The standard deviation; 1 where all numbers are the same."""
        found = math.sqrt(self.square / max(self.count, 1))
        return found if found > SAME * abs(self.mean) else 1.0


def moments_of(rows: Sequence[Row]) -> Moments:
    """The moments of the labels of a regression's rows.

    Raises:
        DataError: for a label that is no number, or several.
    """
    found = [number_of(row["label"]) for row in rows]
    mean = math.fsum(found) / max(len(found), 1)
    return Moments(len(found), mean, math.fsum((value - mean) ** 2 for value in found))


def number_of(label: Any) -> float:
    """A label as the number that it is, or that it is written as.

    Raises:
        DataError: when it is none, not finite, or too large to be squared.
    """
    if isinstance(label, list):
        raise DataError(
            f"a label is a list ({', '.join(map(str, label[:5]))}), and a regression predicts one "
            "number for each row; write one number as the label"
        )
    try:
        found = float(label)
    except ValueError:
        raise DataError(
            f"a label is `{label}`, and a regression predicts numbers; write a number, or set "
            "model.task to classification"
        ) from None
    if not math.isfinite(found):
        raise DataError(f"a label is {label}; write a finite number, or remove the row")
    if abs(found) > LARGEST:
        raise DataError(f"a label is {label}, too large to compute with; write it in larger units")
    return found
