"""Buffered linear Toeplitz (BLT) strategies: what their noise costs, from coefficients alone.

    C = lower triangular, Toeplitz, with c₀ = 1 and cᵢ = Σⱼ scaleⱼ · decayⱼ^(i−1)

Rounds x₁ … xₙ are released as x + C⁻¹z, which is C⁻¹(Cx + z): one Gaussian release of Cx, whatever
is made of it afterwards, also where a round's x depends on what was released before (Denisov,
McMahan, Rush, Smith, Thakurta, NeurIPS 2022, arXiv 2202.08312, Theorem 2.1).
Source: Dvijotham, McMahan, Pillutla, Steinke, Thakurta, Efficient and Near-Optimal Noise Generation
for Streaming Differential Privacy (FOCS 2024, arXiv 2404.16706); McMahan, Xu, Zhang, A Hassle-free
Algorithm for Strong Differential Privacy in Federated Learning Systems (EMNLP 2024, arXiv
2408.08868).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atoll.errors import PrivacyError
from atoll.matrix.participation import Participation

__all__ = ["Blt", "coefficients", "error", "inverse", "sensitivity"]


@dataclass(frozen=True)
class Blt:
    """One buffer for each decay; none is independent noise."""

    decay: tuple[float, ...]
    scale: tuple[float, ...]


def coefficients(blt: Blt, rounds: int) -> NDArray[np.float64]:
    """c₀ … cₙ₋₁, the first column of C."""
    powers = np.power.outer(np.array(blt.decay), np.arange(rounds - 1))
    return np.concatenate([[1.0], np.array(blt.scale) @ powers])


def inverse(blt: Blt, rounds: int) -> NDArray[np.float64]:
    """The first column of C⁻¹: what the streaming multiplication makes of z = 1, 0, 0, …"""
    decay, scale = np.array(blt.decay), np.array(blt.scale)
    column, buffers = np.zeros(rounds), np.zeros(len(decay))
    for t in range(rounds):
        column[t] = (t == 0) - scale @ buffers
        buffers = decay * buffers + column[t]
    return column


def sensitivity(blt: Blt, participation: Participation) -> float:
    """How far Cx moves in L2 norm when one client's rounds, each of L2 norm at most 1, become zero.

    C has no negative entries, so the worst is one direction in all of a client's rounds: the norm
    of a sum of columns. The inner product of columns i < j is Σ_s c_s · c_(s+j−i) over n − j terms.
    Where c never increases, it shrinks with j and with j − i, so that of the allowed rounds those
    as early and as close as can be, 0, b, 2b, …, are the worst (Kalinin, Lampert, NeurIPS 2024,
    arXiv 2405.13763, Theorem 2).

    Raises:
        PrivacyError: when c is negative or increases somewhere, where the argument fails.
    """
    c = coefficients(blt, participation.rounds)
    if not (np.isfinite(c).all() and (c >= 0).all() and (np.diff(c) <= 0).all()):
        raise PrivacyError(
            "a BLT table whose coefficients are negative or increase: its sensitivity is not "
            "known; take the tables that came with the package"
        )
    total = np.zeros(participation.rounds)
    for turn in range(participation.possible):
        start = turn * participation.separation
        total[start:] += c[: participation.rounds - start]
    return float(np.linalg.norm(total))


def error(blt: Blt, rounds: int) -> float:
    """The largest standard deviation of a sum of first rounds' noise, for z of variance 1.

    It is that of all rounds: (A·C⁻¹) is Toeplitz too, and each sum has one term more.
    """
    return math.sqrt(float(np.square(np.cumsum(inverse(blt, rounds))).sum()))
