"""Exposure: how many bits of a secret a model gives away.

Carlini, Liu, Erlingsson, Kos, Song, The Secret Sharer (USENIX Security 2019, arXiv 1802.08232),
Definition 3 and section 5.2: log2 |R| − log2 rank, of a secret's loss among those of |R| random
ones that were not trained on; beyond the first rank, −log2 of a skew-normal distribution of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Exposure", "exposures"]


@dataclass(frozen=True)
class Exposure:
    """bits: by rank, at most log2 |R|.   fitted: by the fitted distribution, which goes on."""

    bits: float
    rank: int
    fitted: float


def exposures(losses: Sequence[float], others: Sequence[float]) -> list[Exposure]:
    """Of secrets with these losses, each among |R| − 1 other ones; a tie is for the others."""
    from scipy.stats import skewnorm

    reference = np.asarray(others, dtype=np.float64)
    likely = skewnorm(*skewnorm.fit(reference))
    found = []
    for loss in losses:
        rank = 1 + int((reference <= loss).sum())
        bits = math.log2(len(reference) + 1) - math.log2(rank)
        found.append(Exposure(bits, rank, -float(likely.logcdf(loss)) / math.log(2)))
    return found
