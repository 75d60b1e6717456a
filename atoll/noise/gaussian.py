"""Gaussian noise from a secret stream."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from atoll.noise.stream import Stream

__all__ = ["standard_normal"]


def standard_normal(stream: Stream, shape: Sequence[int]) -> Tensor:
    """Float64 values of N(0, 1), by the inverse of its distribution function (up to |z| = 8.3).

    Low bits of floating-point noise can tell what it was added to (Mironov, CCS 2012): round both
    to a common grid, as `stages.gaussian` does, before anything is released.
    """
    # Heavy, and most runs draw no noise.
    from scipy.special import ndtri

    return torch.from_numpy(ndtri(stream.uniform(math.prod(shape)))).reshape(tuple(shape))
