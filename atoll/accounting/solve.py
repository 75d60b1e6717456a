"""The least noise with which a run keeps its promise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from atoll.accounting.epsilon import spent
from atoll.accounting.events import Release
from atoll.errors import PrivacyError

__all__ = ["noise_for", "rounded_up"]

_DIGITS = 4
_COARSE, _FINE = 1e-3, 1e-4
_MOST = 1e6
"""Noise beyond which no model is left."""


def noise_for(
    releases: Callable[[float], Sequence[Release]], *, epsilon: float, delta: float
) -> float:
    """The least noise multiplier, to 4 significant digits, whose releases spend at most `epsilon`.

    releases: what a run would release with a noise multiplier.

    Raises:
        PrivacyError: when no noise is enough.
    """

    def over(noise: float, grid: float) -> float:
        return spent(releases(noise), delta, grid=grid).epsilon / epsilon - 1

    low, high = 0.5, 1.0
    while over(high, _COARSE) > 0:
        low, high = high, 2 * high
        if high > _MOST:
            raise PrivacyError(
                f"no noise gives epsilon {epsilon:g} at delta {delta:g}; raise privacy.epsilon"
            )
    while low > 1 / _MOST and over(low, _COARSE) <= 0:
        low, high = low / 2, low
    # A coarse grid says a little too much, and is fast: the fine one looks just below it.
    high = _root(lambda noise: over(noise, _COARSE), low, high)
    high = _root(lambda noise: over(noise, _FINE), high * 0.97, high * 1.01)
    found = rounded_up(high)
    while over(found, _FINE) > 0:
        found = rounded_up(found + _unit(found) / 2)
    return found


def _root(over: Callable[[float], float], low: float, high: float) -> float:
    from scipy.optimize import brentq

    if over(low) <= 0:
        return low
    return high if over(high) > 0 else float(brentq(over, low, high, xtol=_unit(high) / 8))


def _unit(value: float) -> float:
    """One in the last of the digits that are kept."""
    return float(10.0 ** (math.floor(math.log10(value)) - _DIGITS + 1))


def rounded_up(value: float) -> float:
    """To the digits of a noise multiplier."""
    unit = _unit(value)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.{_DIGITS}g}")
