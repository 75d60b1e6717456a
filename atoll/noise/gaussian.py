"""Gaussian noise from a secret stream."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atoll.noise.stream import Stream

__all__ = ["standard_normal"]

_WORD = 2.0**-64
_ENOUGH = np.uint64(1 << 53)
"""What is not below it, as a whole number of bits, fills the precision of a float."""


def standard_normal(stream: Stream, shape: Sequence[int]) -> Tensor:
    """Float64 values of N(0, 1): a sign, and the inverse distribution function below the median.

    Values are as dense in the tails as floats are, so that no point of the grid that they are
    rounded to is out of reach, which would tell what is under the noise.

    Low bits of floating-point noise can tell what it was added to (Mironov, CCS 2012): round both
    to a common grid, as `servers.noised` does, before anything is released.
    """
    # Heavy, and most runs draw no noise.
    from scipy.special import ndtri

    words = stream.words(math.prod(shape))
    share = _below_half(words >> np.uint64(1), stream)
    values = ndtri(share, out=share)
    values.view(np.uint64)[:] ^= words << np.uint64(63)
    return torch.from_numpy(values).reshape(tuple(shape))


def _below_half(bits: NDArray[np.uint64], stream: Stream) -> NDArray[np.float64]:
    """Uniform in (0, 1/2], each to 2⁻⁵³ of itself.

    bits: 63 of each; where leading zeros leave too few, once in 2¹⁰ values, the stream gives more.
    """
    found = bits.view(np.int64).astype(np.float64)
    found *= _WORD
    short, unit = np.flatnonzero(bits < _ENOUGH), _WORD
    while len(short):
        unit *= _WORD
        found[short] += stream.words(len(short)) * unit
        short = short[found[short] < float(_ENOUGH) * unit]
    return found
