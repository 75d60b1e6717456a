"""Clients whose only purpose is to be seen: what of them shows in what a mechanism releases.

Each canary client sends one value, at a place of its own, far above the clip. Together they see the
whole mechanism: that it clips, samples, and adds noise everywhere, and enough of it.

Andrew, Kairouz, Oh, Oprea, McMahan, Suriyakumar, One-shot Empirical Privacy Estimation for
Federated Learning (ICLR 2024, arXiv 2302.03098), with places instead of random directions: they
are orthogonal to each other whatever the dimension, and Gaussian noise has no direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atoll.noise import Stream, standard_normal

__all__ = ["Estimate", "Release", "Schedule", "Scores", "estimated", "gaussian_release", "watched"]

Values = NDArray[np.float64]
Coins = NDArray[np.bool_]
Release = Callable[[int, Coins], Values]
"""(round, which canaries take part) -> what is released at the place of each canary."""

CERTAIN = 5.0
"""Standard errors by which less noise than promised must show: of three million runs that keep
their promise one does not seem to."""
_NORMAL = 1.96


@dataclass(frozen=True)
class Schedule:
    """Who takes part: each client in each round by a coin of its own."""

    rounds: int = 1
    rate: float = 1.0

    def separation(self, noise_multiplier: float) -> float:
        """μ of all releases added up, for a client that takes part and one that does not."""
        if noise_multiplier == 0:
            return math.inf
        return self.rate * math.sqrt(self.rounds) / noise_multiplier


@dataclass(frozen=True)
class Scores:
    """What was released at each canary's place, added up, and whether the canary was there."""

    values: Values
    included: Coins


@dataclass(frozen=True)
class Estimate:
    """ε as what was seen suggests it, with its 95 % interval: a suggestion, not a bound.

    least: what ε certainly is not below.
    separation: μ, in deviations of those who were not there; error: its standard error.
    """

    epsilon: float
    interval: tuple[float, float]
    least: float
    separation: float
    error: float

    def beyond(self, separation: float) -> bool:
        """Whether more shows than a mechanism of that separation lets show."""
        return self.separation - CERTAIN * self.error > separation


def gaussian_release(noise_multiplier: float, *, key: bytes) -> Release:
    """A sum of clipped values with so much noise, in clips."""

    def release(number: int, there: Coins) -> Values:
        noise = standard_normal(Stream(key, "release", number), there.shape).numpy()
        return there + noise_multiplier * noise

    return release


def watched(release: Release, schedule: Schedule, *, canaries: int, key: bytes) -> Scores:
    """Let canaries take part in all rounds: half of them, by fair coins, and the others in none."""
    included = Stream(key, "included").coins(0.5, canaries)
    values = np.zeros(canaries)
    for number in range(schedule.rounds):
        cohort = Stream(key, "cohort", number).coins(schedule.rate, canaries)
        values += release(number, included & cohort)
    return Scores(values, included)


def estimated(scores: Scores, delta: float) -> Estimate:
    """ε of the Gaussian mechanism that would separate canaries as much as was seen."""
    there, others = scores.values[scores.included], scores.values[~scores.included]
    spread = float(others.std(ddof=1))
    if spread == 0:
        return Estimate(math.inf, (math.inf, math.inf), math.inf, math.inf, 0.0)
    separation = float(there.mean() - others.mean()) / spread
    of_means = float(there.var(ddof=1)) / len(there) / spread**2 + 1 / len(others)
    error = math.sqrt(of_means + separation**2 / (2 * (len(others) - 1)))
    least, low, found, high = (
        _epsilon(separation + side * error, delta) for side in (-CERTAIN, -_NORMAL, 0, _NORMAL)
    )
    return Estimate(found, (low, high), least, separation, error)


def _epsilon(separation: float, delta: float) -> float:
    from dp_accounting import get_epsilon_gaussian

    return float(get_epsilon_gaussian(1 / separation, delta)) if separation > 0 else 0.0
