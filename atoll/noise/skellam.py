"""Skellam noise, the difference of two Poisson variables, from a secret stream."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from atoll.errors import PrivacyError
from atoll.noise.inversion import CUT, ONE, Table, draw, tabulated
from atoll.noise.stream import Stream

__all__ = ["poisson", "skellam"]

_SMALLEST, _LARGEST = 0.25, 2.0**31
"""Means of a Poisson variable."""


def skellam(stream: Stream, variance: float, shape: Sequence[int]) -> Tensor:
    """Whole numbers (int64) of mean 0: Poisson(variance / 2) − Poisson(variance / 2).

    Sums of independent ones are Skellam again, and their variances add.
    Source: Agarwal, Kairouz, Liu, The Skellam Mechanism for Differentially Private Federated
    Learning (NeurIPS 2021, arXiv 2110.04995), Definition 3.1.

    Raises:
        PrivacyError: when the variance is not from 0.5 to 2³².
    """
    return poisson(stream, variance / 2, shape) - poisson(stream, variance / 2, shape)


def poisson(stream: Stream, mean: float, shape: Sequence[int]) -> Tensor:
    """Poisson counts (int64), each within 2⁻¹⁰⁰ of the distribution in total variation.

    Raises:
        PrivacyError: when the mean is not from 0.25 to 2³¹.
    """
    if not _SMALLEST <= mean <= _LARGEST:
        raise PrivacyError(
            f"Skellam noise with a variance of {2 * mean:g} squared grid units; choose the grid so "
            f"that it is from {2 * _SMALLEST:g} to {2 * _LARGEST:g}"
        )
    return torch.from_numpy(draw(_table(mean), stream, math.prod(shape))).reshape(tuple(shape))


@lru_cache(maxsize=4)
def _table(mean: float) -> Table:
    """Weights from the mode outwards: w(k+1) = w(k)·mean / (k+1), and w(k−1) = w(k)·k / mean."""
    numerator, denominator = mean.as_integer_ratio()
    mode = math.floor(mean)
    above, k, weight = list[int](), mode, ONE
    while weight >= CUT:
        above.append(weight)
        k += 1
        weight = weight * numerator // (denominator * k)
    below, k, weight = list[int](), mode, ONE * mode * denominator // numerator
    while weight >= CUT:
        below.append(weight)
        k -= 1
        weight = weight * k * denominator // numerator
    return tabulated([*reversed(below), *above], mode - len(below))
