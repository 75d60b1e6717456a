"""Rounding to whole numbers without making a bounded vector longer than was agreed."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atoll.errors import PrivacyError
from atoll.noise.stream import Stream

__all__ = ["rounded"]

_TRIES = 200


def rounded(stream: Stream, values: Tensor, bound: float) -> Tensor:
    """Each value becomes one of its two neighbouring whole numbers (int64), with E = value, again
    and again until the L2 norm of all together is at most `bound`.

    values: float64 in grid units. The bound is that of `accounting.grid.rounded_norm`, which two of
    five tries keep at the least; nearly all do.
    Source: Kairouz, Liu, Steinke, The Distributed Discrete Gaussian Mechanism for Federated
    Learning with Secure Aggregation (ICML 2021, arXiv 2102.06387), Algorithm 1 and section 4.1.

    Raises:
        PrivacyError: when the values are longer than what the bound was made for.
    """
    assert bound < 2**31, "a grid so fine that squares of whole numbers overflow"
    exact = values.detach().double().numpy().reshape(-1)
    if np.linalg.norm(exact) <= bound:
        below = np.floor(exact)
        share, whole = exact - below, below.astype(np.int64)
        for _ in range(_TRIES):
            found = whole + (stream.uniform(len(exact)) < share)
            if _squared(found) <= bound**2:
                return torch.from_numpy(found).reshape(values.shape)
    raise PrivacyError(
        f"an update of L2 norm {np.linalg.norm(exact):.6g} grid units cannot be rounded to one of "
        f"{bound:.6g} or less; clip it to the norm that the noise was planned for"
    )


def _squared(values: NDArray[np.int64]) -> int:
    # In whole numbers: in floating point a sum of millions may come out below the bound.
    return int(np.dot(values, values))
