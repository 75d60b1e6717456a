"""Discrete Gaussian noise from a secret stream."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from decimal import Decimal, localcontext
from functools import lru_cache

import torch
from torch import Tensor

from atoll.errors import PrivacyError
from atoll.noise.inversion import CUT, ONE, Table, draw, tabulated
from atoll.noise.stream import Stream

__all__ = ["LARGEST", "discrete_gaussian"]

LARGEST = 2.0**16
"""The largest standard deviation; a table of it has 2²¹ values."""

_SMALLEST = 0.5
_DIGITS = 100


def discrete_gaussian(stream: Stream, sigma: float, shape: Sequence[int]) -> Tensor:
    """Whole numbers (int64) with P(x) proportional to exp(−x² / 2σ²).

    They are drawn by inversion instead of the paper's rejection: each is within 2⁻¹⁰⁰ of the
    distribution in total variation, after as many steps as any other.
    Source: Canonne, Kamath, Steinke, The Discrete Gaussian for Differential Privacy (NeurIPS 2020,
    arXiv 2004.00010), Definition 1.

    Raises:
        PrivacyError: when σ is not from 0.5 to 2¹⁶ grid units.
    """
    if not _SMALLEST <= sigma <= LARGEST:
        raise PrivacyError(
            f"discrete Gaussian noise with a standard deviation of {sigma:g} grid units; choose "
            f"the grid so that it is from {_SMALLEST:g} to {LARGEST:g}"
        )
    values = draw(_table(sigma), stream, math.prod(shape))
    return torch.from_numpy(values).reshape(tuple(shape))


@lru_cache(maxsize=4)
def _table(sigma: float) -> Table:
    half = list(_half(sigma))
    return tabulated([*reversed(half[1:]), *half], 1 - len(half))


def _half(sigma: float) -> Iterator[int]:
    """The weights of 0, 1, 2, …: w(x+1) = w(x)·ratio(x), and ratio(x+1) = ratio(x)·exp(−1/σ²)."""
    weight, ratio, shrink = ONE, _exp(-0.5, sigma), _exp(-1.0, sigma)
    while weight >= CUT:
        yield weight
        weight, ratio = weight * ratio // ONE, ratio * shrink // ONE


def _exp(numerator: float, sigma: float) -> int:
    """exp(numerator / σ²), in units of 1 / ONE."""
    with localcontext(prec=_DIGITS):
        return int((Decimal(numerator) / Decimal(sigma) ** 2).exp() * ONE)
