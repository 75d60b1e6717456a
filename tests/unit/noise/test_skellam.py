"""Skellam and Poisson noise against scipy's probabilities, and against fifty digits."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from atoll.errors import PrivacyError
from atoll.noise import Stream
from atoll.noise.skellam import _table, poisson, skellam

KEY = bytes(range(32))
SHARES = np.linspace(0, 1, 101)[1:-1]


def _p_value(values: NDArray[np.int64], law: stats.rv_discrete) -> float:
    """A chi-square test over a hundred or fewer parts of about equal probability."""
    edges = np.unique(law.ppf(SHARES))
    expected = np.diff(np.concatenate([[0.0], law.cdf(edges), [1.0]])) * values.size
    # Part i holds edges[i−1] < x ≤ edges[i].
    found = np.bincount(np.searchsorted(edges, values), minlength=len(expected))
    keep = expected > 5
    expected[~keep] = found[~keep] = 0
    expected *= found.sum() / expected.sum()
    return float(stats.chisquare(found[keep], expected[keep]).pvalue)


@pytest.mark.parametrize("mean", [0.25, 0.9, 1.0, 7.3, 400.0])
def test_the_table_is_the_distribution_to_thirty_digits(mean: float) -> None:
    table = _table(mean)
    assert table.lowest >= 0
    with localcontext(prec=80):
        weight = below = (-Decimal(mean)).exp()
        for count in range(int(mean + 30 * mean**0.5 + 60)):
            place = count - table.lowest
            if 0 <= place < len(table.high):
                found = Decimal((int(table.high[place]) << 64) + int(table.low[place])) / 2**128
                assert abs(found - below) < Decimal(2) ** -120
            else:
                assert min(below, 1 - below) < Decimal(2) ** -120
            weight *= Decimal(mean) / (count + 1)
            below += weight


@pytest.mark.parametrize("mean", [0.25, 3.7, 150.0, 2.5e6, 2.0**31])
def test_poisson_draws_have_their_probabilities(mean: float) -> None:
    values = poisson(Stream(KEY, "poisson", str(mean)), mean, (500_000,)).numpy()
    assert _p_value(values, stats.poisson(mean)) > 1e-3


@pytest.mark.parametrize("variance", [0.5, 4.0, 300.0])
def test_skellam_draws_have_their_probabilities(variance: float) -> None:
    values = skellam(Stream(KEY, "noise", str(variance)), variance, (500, 1000)).numpy()
    assert _p_value(values.reshape(-1), stats.skellam(variance / 2, variance / 2)) > 1e-3
    assert abs(values.var() / variance - 1) < 0.01


def test_sums_are_skellam_again() -> None:
    values = sum(skellam(Stream(KEY, client), 4.5, (400_000,)) for client in range(4))
    assert isinstance(values, torch.Tensor)
    assert _p_value(values.numpy(), stats.skellam(9.0, 9.0)) > 1e-3


def test_values_are_those_of_their_stream() -> None:
    one = skellam(Stream(KEY, 1), 50.0, (2, 300))
    assert one.dtype == torch.int64
    assert torch.equal(one, skellam(Stream(KEY, 1), 50.0, (2, 300)))
    assert not torch.equal(one, skellam(Stream(KEY, 2), 50.0, (2, 300)))


@pytest.mark.parametrize("variance", [0.0, -2.0, 0.4, 2.0**33, float("nan"), float("inf")])
def test_a_grid_that_does_not_fit_is_refused(variance: float) -> None:
    with pytest.raises(PrivacyError, match=r"squared grid units; choose the grid"):
        skellam(Stream(KEY), variance, (3,))
