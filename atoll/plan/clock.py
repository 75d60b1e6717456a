"""Seconds that work took, and lines through them: a fixed share and shares that grow with size."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

__all__ = ["Line", "Sample", "Seconds", "fit", "now", "timed"]

T = TypeVar("T")


@dataclass(frozen=True)
class Seconds:
    """wall: as a clock on the wall counts.   cpu: of this process, which others move little."""

    wall: float = 0.0
    cpu: float = 0.0

    def __add__(self, other: Seconds) -> Seconds:
        """Both, one after the other."""
        return Seconds(self.wall + other.wall, self.cpu + other.cpu)

    def __sub__(self, other: Seconds) -> Seconds:
        """From another moment to this one; the least is nothing."""
        return Seconds(max(self.wall - other.wall, 0.0), max(self.cpu - other.cpu, 0.0))

    def times(self, factor: float) -> Seconds:
        """So many times."""
        return Seconds(self.wall * factor, self.cpu * factor)


Sample = tuple[tuple[float, ...], Seconds]
"""The amounts of some work, and what it took."""


@dataclass(frozen=True)
class Line:
    """Seconds for each unit of each amount."""

    shares: tuple[Seconds, ...]

    def at(self, *amounts: float) -> Seconds:
        """What these amounts take."""
        found = Seconds()
        for share, amount in zip(self.shares, amounts, strict=True):
            found += share.times(amount)
        return found


def now(device: torch.device) -> Seconds:
    """This moment, when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return Seconds(time.perf_counter(), time.process_time())


def timed(work: Callable[[], T], device: torch.device) -> tuple[T, Seconds]:
    """What `work` returns, and what it took."""
    start = now(device)
    found = work()
    return found, now(device) - start


def fit(samples: Sequence[Sample]) -> Line:
    """The line with the least relative errors whose shares are not negative."""
    amounts = np.array([given for given, _ in samples], dtype=float)
    found = []
    for column in ("wall", "cpu"):
        taken = np.array([s.wall if column == "wall" else s.cpu for _, s in samples])
        found.append(_shares(amounts, np.maximum(taken, 1e-9)))
    return Line(tuple(Seconds(float(w), float(c)) for w, c in zip(*found, strict=True)))


def _shares(amounts: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Non-negative least squares of few columns: the best of all choices of columns."""
    scaled, ones = amounts / taken[:, None], np.ones(len(taken))
    width, best, least = amounts.shape[1], np.zeros(amounts.shape[1]), float("inf")
    for size in range(1, width + 1):
        for chosen in itertools.combinations(range(width), size):
            part, *_ = np.linalg.lstsq(scaled[:, chosen], ones, rcond=None)
            error = float(((scaled[:, chosen] @ part - 1) ** 2).sum())
            # A column more must be worth it: two samples fit two columns whatever they say.
            if (part >= 0).all() and error < least * 0.999:
                best, least = np.zeros(width), error
                best[list(chosen)] = part
    return best
