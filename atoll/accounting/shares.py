"""How far apart sums of clients' noise are: Rényi divergences of neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from atoll.accounting.grid import Mechanism

__all__ = ["WHOLE_ORDERS", "Floats", "Shared", "concentrated", "divergence", "drawn", "tau"]

Floats = NDArray[np.float64]
WHOLE_ORDERS = np.array([*range(2, 33), 40, 48, 64, 96, 128, 192, 256], np.float64)
Count = Annotated[int, Field(ge=1, le=2**40)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Shared(BaseModel):
    """One round of clients that add noise themselves, as an accountant must know it: plain values
    that a ledger can hold.

    norm: the L2 norm of an update, and sigma: the standard deviation of one client's noise, both in
    the same units, of a grid where the noise is discrete.   survivors: those whose noise is in the
    sum; colluding: of them, those who may have told the server what they added.
    population: among whom a cohort is drawn.   steps: how many such rounds.
    A mechanism of `gaussian` is noise that hides each update by itself from the server, too.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    kind: Literal["shared"] = "shared"
    unit: Literal["client"] = "client"
    mechanism: Mechanism | Literal["gaussian"]
    norm: Positive
    values: Count
    sigma: Positive
    asked: Count
    survivors: Count
    population: Count
    colluding: Annotated[int, Field(ge=0)] = 0
    steps: Count = 1

    @model_validator(mode="after")
    def _within(self) -> Shared:
        if not self.colluding < self.survivors <= self.asked <= self.population:
            raise ValueError(
                f"{self.colluding} colluding of {self.survivors} survivors of {self.asked} asked "
                f"of {self.population}"
            )
        return self


def tau(sigma: float, clients: int) -> float:
    """How far, at most, log P of a sum of discrete Gaussians is from that of one discrete Gaussian.

    Source: Kairouz, Liu, Steinke (ICML 2021, arXiv 2102.06387), Theorem 1.
    """
    k = np.arange(1, clients)
    return float(10 * np.exp(-2 * (math.pi * sigma) ** 2 * k / (k + 1)).sum())


def concentrated(*, norm: float, values: int, sigma: float, clients: int) -> float:
    """ε of ½ε²-concentrated differential privacy of a sum of discrete Gaussians.

    Source: as `tau`; for σ ≥ ½ grid units.
    """
    gap, ratio = tau(sigma, clients), norm / (math.sqrt(clients) * sigma)
    return min(math.sqrt(ratio**2 + gap * values / 2), ratio + gap * math.sqrt(values))


def divergence(
    release: Shared, shares: int, *, distance: float = 1.0
) -> Callable[[Floats], Floats]:
    """The Rényi divergence at orders α > 1 of sums that differ by distance · norm."""
    norm = distance * release.norm
    if release.mechanism == "gaussian":
        precision = norm**2 / (shares * release.sigma**2)
        return lambda order: order * precision / 2
    if release.mechanism == "discrete_gaussian":
        epsilon = concentrated(
            norm=norm, values=release.values, sigma=release.sigma, clients=shares
        )
        return lambda order: order * epsilon**2 / 2
    # Agarwal, Kairouz, Liu (NeurIPS 2021, arXiv 2110.04995), Corollary 3.6. The L1 norm of whole
    # numbers is their squared L2 norm at the most.
    variance, l1 = shares * release.sigma**2, norm * min(math.sqrt(release.values), norm)

    def whole(order: Floats) -> Floats:
        extra = ((2 * order - 1) * norm**2 + 6 * l1) / (4 * variance**2)
        return order * norm**2 / (2 * variance) + np.minimum(extra, 3 * l1 / (2 * variance))

    return lambda order: _between(whole, order)


def _between(bound: Callable[[Floats], Floats], order: Floats) -> Floats:
    """A bound at whole orders, at those between: (α − 1)·D_α is convex in α, and 0 at α = 1 (van
    Erven, Harremoës, IEEE Trans. Inf. Theory 2014, arXiv 1206.2459, Corollary 2).
    """
    low = np.floor(order)
    share = order - low
    total = (1 - share) * (low - 1) * bound(low) + share * low * bound(low + 1)
    return np.asarray(total / (order - 1), np.float64)


@lru_cache(maxsize=256)
def drawn(release: Shared) -> Floats:
    """The divergence, at whole orders, of a sum over a cohort drawn without replacement."""
    rate = min(1.0, release.asked / release.population)
    if release.mechanism != "skellam":
        return _drawn_gaussian(release, rate)
    return _drawn_any(divergence(release, release.survivors, distance=2.0), rate)


def _drawn_gaussian(release: Shared, rate: float) -> Floats:
    """Theorem 27 of Wang et al. reads moments E_q[(p/q)^j] for whole j only. Those of two discrete
    Gaussians, a whole vector apart, are those of continuous ones; and a sum of discrete Gaussians
    differs from one by a factor of exp(±τd), which adds (2α − 1) / (α − 1) · τd ≤ 3τd.
    """
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    noise = math.sqrt(release.survivors) * release.sigma / (2 * release.norm)
    accountant = RdpAccountant(WHOLE_ORDERS, dp_accounting.NeighboringRelation.REPLACE_ONE)
    whole = 10**9  # dp-accounting wants counts, and reads their ratio
    event = dp_accounting.GaussianDpEvent(noise)
    accountant.compose(
        dp_accounting.SampledWithoutReplacementDpEvent(whole, math.ceil(rate * whole), event)
    )
    gap = 0.0
    if release.mechanism == "discrete_gaussian":
        gap = tau(release.sigma, release.survivors) * release.values
    return np.asarray(accountant.rdp, np.float64) + 3 * gap


def _drawn_any(base: Callable[[Floats], Floats], rate: float) -> Floats:
    """Wang, Balle, Kasiviswanathan (AISTATS 2019, arXiv 1808.00087), Theorem 9, for ε(∞) = ∞."""
    from scipy.special import gammaln, logsumexp

    j = np.arange(2.0, WHOLE_ORDERS[-1] + 1)
    terms = j * math.log(rate) + math.log(2) + (j - 1) * base(j)
    two = float(base(j[:1])[0])
    # min(2·exp(two), 4·(exp(two) − 1)), as a logarithm.
    terms[0] = 2 * math.log(rate) + two + min(math.log(2), math.log(-4 * math.expm1(-two)))
    found = np.empty(len(WHOLE_ORDERS))
    for i, order in enumerate(WHOLE_ORDERS):
        upto = j[j <= order]
        choose = gammaln(order + 1) - gammaln(upto + 1) - gammaln(order - upto + 1)
        found[i] = logsumexp(np.append(0.0, terms[: len(upto)] + choose)) / (order - 1)
    return found
