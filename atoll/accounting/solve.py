"""The least noise with which a run keeps its promise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from atoll.accounting.epsilon import COARSE, LEAST, MOST, spent
from atoll.accounting.events import Poisson, Release
from atoll.errors import PrivacyError

__all__ = ["noise_for", "rounded_up"]

_DIGITS = 4
_FINE = 1e-4
_STEP = 0.01
"""Of the slope of ε, as a share of the noise."""
Over = Callable[[float], float]
"""By what share a noise multiplier spends more than the promise; below 0 where it spends less."""


def noise_for(
    releases: Callable[[float], Sequence[Release]], *, epsilon: float, delta: float
) -> float:
    """The least noise multiplier, to 4 significant digits, whose releases spend at most `epsilon`.

    releases: what a run would release with a noise multiplier.

    Raises:
        PrivacyError: when no noise is enough.
    """
    from scipy.optimize import brentq

    def rough(noise: float) -> float:
        # A cap makes the privacy loss slow to compute, and the usual one hardly moves it.
        found = spent([_uncapped(one) for one in releases(noise)], delta, grid=COARSE)
        return found.epsilon / epsilon - 1

    def over(noise: float, grid: float) -> float:
        return spent(releases(noise), delta, grid=grid).epsilon / epsilon - 1

    low = high = 1.0
    while rough(high) > 0:
        low, high = high, 2 * high
        if high > MOST:
            raise PrivacyError(
                f"no noise gives epsilon {epsilon:g} at delta {delta:g}; raise privacy.epsilon"
            )
    while low > LEAST and rough(low) <= 0:
        low, high = max(low / 2, LEAST), low
    if rough(low) <= 0:
        return low
    guess = float(brentq(rough, low, high, xtol=_unit(high) / 8))
    slope = (rough(guess) - rough(guess * (1 - _STEP))) / _STEP
    for grid in (COARSE, _FINE):
        guess = _least(partial(over, grid=grid), guess, slope)
    return guess


def _uncapped(release: Release) -> Release:
    if not isinstance(release.sampling, Poisson):
        return release
    return release.model_copy(update={"sampling": Poisson(rate=release.sampling.rate)})


def _least(over: Over, guess: float, slope: float) -> float:
    """The least noise of so many digits that is not over, from a guess that is near it.

    slope: of `over` along the logarithm of the noise; what is seen corrects it.
    """
    noise, before = rounded_up(guess), (0.0, 0.0)
    failing, passing = 0.0, math.inf
    while noise < passing:
        found = over(noise)
        failing, passing = (noise, passing) if found > 0 else (failing, noise)
        if before[0]:
            slope = (found - before[1]) / math.log(noise / before[0])
        before = noise, found
        # No ε falls more slowly than one over the root of the noise.
        step = min(max(-found / min(slope, -0.5), -0.5), 1.0)
        root = rounded_up(noise * (1 + step))
        if found > 0 and root >= passing:
            root = rounded_up((failing + passing) / 2)
        noise = max(root, rounded_up(failing + _unit(failing) / 2)) if failing else root
    return passing


def _unit(value: float) -> float:
    """One in the last of the digits that are kept."""
    return float(10.0 ** (math.floor(math.log10(value)) - _DIGITS + 1))


def rounded_up(value: float) -> float:
    """To the digits of a noise multiplier."""
    unit = _unit(value)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.{_DIGITS}g}")
