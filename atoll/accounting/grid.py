"""The grid on which clients round their updates and add noise, before a sum modulo 2³²."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from atoll.errors import ConfigError, PrivacyError

__all__ = ["BEYOND", "Plan", "Sum", "planned", "rounded_norm"]

Mechanism = Literal["discrete_gaussian", "skellam"]

BEYOND = 2.0**-100
"""How probable it is, at most, that any value of any client in one round is too large for its bits.
Such a client cannot send it, which tells of its update: (1 + exp(ε)) · 2⁻¹⁰⁰ a round come on top of
δ, below 10⁻²⁰ up to ε = 20."""

_COARSEST, _AIM, _FINEST = 1.5, 2.0, 2.0**15
"""Standard deviations of one client's noise, in grid units: the least that is accepted, the least
that is chosen, and the most, since tables of noise grow with it."""
_FINE = 0.1
"""Grid spacing · √values / clipping norm; at 0.1 rounding makes an update 0.2 % longer."""


@dataclass(frozen=True)
class Sum:
    """One round's secure sum of clients' updates.

    clip: the L2 norm of an update.   values: how many numbers it has.   asked: clients, at most.
    floor: how many of them answer at the least; below, nothing is unmasked.
    colluding: how many of those who answer may tell the server what noise they added.

    Raises:
        ConfigError: when these do not fit each other.
    """

    clip: float
    values: int
    asked: int
    floor: int
    colluding: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.clip < math.inf:
            raise ConfigError(
                f"mechanism 'distributed': clip is {self.clip}; give a number above 0"
            )
        if not (self.values >= 1 and 0 <= self.colluding < self.floor <= self.asked):
            raise ConfigError(
                f"mechanism 'distributed': {self.values} values of {self.asked} clients, of whom "
                f"{self.floor} answer and {self.colluding} collude; give at least one value, and "
                "colluding < floor <= asked"
            )


@dataclass(frozen=True)
class Plan:
    """What each client does: divide by `spacing`, round within `norm`, add noise of `sigma`.

    spacing: a power of two, so that dividing by it loses nothing.
    sigma: the standard deviation of one client's noise, in grid units.

    Raises:
        PrivacyError: when the grid is too coarse for the noise, or too fine for the modulus.
    """

    sum: Sum
    mechanism: Mechanism
    spacing: float
    sigma: float

    def __post_init__(self) -> None:
        if not self.sigma >= _COARSEST:
            raise PrivacyError(
                f"each client's noise is {self.sigma:.3g} grid units, and so coarse a noise hides "
                f"less than its size says; at least {_COARSEST:g} are needed: take a finer grid, "
                f"more noise, or fewer than {self.sum.asked} clients a round"
            )
        if not self.reach < self.top:
            raise PrivacyError(
                f"a rounded update with its noise reaches {self.reach:.3g} grid units, and sums of "
                f"{self.sum.asked} modulo 2^32 leave {self.top} to each; take a coarser grid or "
                "fewer clients a round"
            )

    @property
    def norm(self) -> float:
        """The L2 norm of a rounded update, in grid units, at most."""
        return rounded_norm(self.sum.clip / self.spacing, self.sum.values)

    @property
    def reach(self) -> float:
        """The largest value that a client sends, in grid units, but for `BEYOND`."""
        return _reach(self.sum, self.spacing, self.sigma)

    @property
    def bits(self) -> int:
        """Bits of a value with its sign, so that sums of all clients stay within 32."""
        return _bits(self.sum)

    @property
    def top(self) -> int:
        """The largest value of so many bits."""
        return (1 << self.bits - 1) - 1


def planned(total: Sum, noise_multiplier: float, mechanism: Mechanism) -> Plan:
    """The grid on which the noise of the fewest honest clients is noise_multiplier · clip.

    It is as fine as is of use: its rounding is small beside the update and beside one client's
    noise. Where the modulus is too small for that it is coarser.

    No rotation comes before it. A rotation flattens updates, so that fewer bits hold their sum; at
    the 4 bytes a value that secure aggregation sends anyway, sums of thousands of clients fit
    without, and what rounding does to the norm does not depend on it.

    Raises:
        PrivacyError: when no grid suits both the noise and the modulus.
    """
    one = noise_multiplier * total.clip / math.sqrt(total.floor - total.colluding)
    if not 0 < one < math.inf:
        raise ConfigError(
            f"mechanism 'distributed': noise_multiplier is {noise_multiplier}; give a number above "
            "0"
        )
    spacing = max(min(_FINE * total.clip / math.sqrt(total.values), one / _AIM), one / _FINEST)
    spacing = 2.0 ** math.floor(math.log2(spacing))
    top = (1 << _bits(total) - 1) - 1
    while one / spacing >= _COARSEST and not _reach(total, spacing, one / spacing) < top:
        spacing *= 2
    return Plan(total, mechanism, spacing, one / spacing)


def _bits(total: Sum) -> int:
    return ((2**31 - 1) // total.asked).bit_length()


def _reach(total: Sum, spacing: float, sigma: float) -> float:
    """An update may be one value. Noise of both kinds has Bernstein's tail, for a variance of v:
    P(|z| ≥ a) ≤ 2 exp(−a² / (2v + 2a/3)).
    """
    share = math.log(2 * total.asked * total.values / BEYOND)
    tail = share / 3 + math.sqrt((share / 3) ** 2 + 2 * sigma**2 * share)
    return rounded_norm(total.clip / spacing, total.values) + tail


def rounded_norm(norm: float, values: int) -> float:
    """How long a vector of L2 norm `norm` is, at most, once it is rounded to whole numbers and
    drawn again where it is longer; β = exp(−1/2), so that a draw is kept with probability 0.39 or
    more.

    Source: Kairouz, Liu, Steinke (ICML 2021, arXiv 2102.06387), Theorem 1.
    """
    root = math.sqrt(values)
    return min(norm + root, math.sqrt(norm**2 + values / 4 + (norm + root / 2)))
