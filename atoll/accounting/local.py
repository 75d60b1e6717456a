"""The noise of a client that trusts nobody, and what it promises."""

from __future__ import annotations

import math
from typing import Literal

from atoll.errors import ConfigError

__all__ = ["Neighbours", "epsilon_of", "sensitivity", "sigma_for"]

Neighbours = Literal["replace-one", "zero-out"]
"""What who sees the messages cannot tell: which of any two updates a client had, or whether it had
its own or none."""


def sensitivity(clip: float, neighbours: Neighbours) -> float:
    """The L2 distance of two updates clipped to `clip`: 2 · clip, or clip where one is zero."""
    return {"replace-one": 2.0, "zero-out": 1.0}[neighbours] * clip


def sigma_for(
    *, epsilon: float, delta: float, clip: float, neighbours: Neighbours, rounds: int
) -> float:
    """The least standard deviation with which `rounds` messages together spend `epsilon`.

    n messages with noise σ are one with σ / √n.
    Source: Balle, Wang, Improving the Gaussian Mechanism for Differential Privacy (ICML 2018, arXiv
    1805.06530), Theorem 8 and Algorithm 1.
    """
    from dp_accounting.gaussian_mechanism import get_sigma_gaussian

    if not (0 < epsilon < math.inf and 0 < delta < 1):
        raise ConfigError(
            f"mechanism 'local': epsilon {epsilon:g} at delta {delta:g}; give an epsilon above 0 "
            "and a delta between 0 and 1"
        )
    one = float(get_sigma_gaussian(epsilon, delta))
    return one * math.sqrt(rounds) * sensitivity(clip, neighbours)


def epsilon_of(
    *, sigma: float, delta: float, clip: float, neighbours: Neighbours, rounds: int
) -> float:
    """What `rounds` messages with noise `sigma` spend together; see `sigma_for`."""
    from dp_accounting.gaussian_mechanism import get_epsilon_gaussian

    noise = sigma / sensitivity(clip, neighbours) / math.sqrt(rounds)
    return float(get_epsilon_gaussian(noise, delta))
