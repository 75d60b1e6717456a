"""Discrete Gaussian noise against its probabilities, computed to fifty digits."""

from __future__ import annotations

from bisect import bisect_right
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from atoll.errors import PrivacyError
from atoll.noise import Stream
from atoll.noise.discrete import _table, discrete_gaussian
from atoll.noise.inversion import Table, draw, located, tabulated

KEY = bytes(range(32))
WORD = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize("sigma", [0.5, 1.5, 2.0, 30.7])
def test_the_table_is_the_distribution_to_thirty_digits(sigma: float) -> None:
    table = _table(sigma)
    with localcontext(prec=80):
        weights = [
            (-(Decimal(x) ** 2) / (2 * Decimal(sigma) ** 2)).exp()
            for x in range(-int(20 * sigma), int(20 * sigma) + 1)
        ]
        total, below = sum(weights), Decimal(0)
        for x, weight in zip(range(-int(20 * sigma), 10**9), weights, strict=False):
            below += weight
            place = x - table.lowest
            if 0 <= place < len(table.high):
                found = Decimal((int(table.high[place]) << 64) + int(table.low[place])) / 2**128
                assert abs(found - below / total) < Decimal(2) ** -120
            else:
                assert min(below, total - below) / total < Decimal(2) ** -120


@pytest.mark.parametrize("sigma", [0.5, 2.0, 17.3, 548.0])
def test_a_million_draws_have_their_probabilities(sigma: float) -> None:
    values = discrete_gaussian(Stream(KEY, "noise", str(sigma)), sigma, (1000, 1000)).numpy()
    reach = int(15 * sigma)
    exact = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    exact *= values.size / exact.sum()
    seen = np.bincount(values.reshape(-1) + reach, minlength=2 * reach + 1)
    # Neighbours go together until ten are expected; the tails go into the first and last.
    groups = np.floor(np.cumsum(exact) / 10).astype(int)
    groups = np.minimum(groups, groups[-1] - 1)
    expected, found = np.bincount(groups, exact), np.bincount(groups, seen)
    keep = expected > 0
    assert stats.chisquare(found[keep], expected[keep]).pvalue > 1e-3
    assert abs(values.var() / (exact @ np.arange(-reach, reach + 1) ** 2 / values.size) - 1) < 0.01


def test_values_are_independent_and_those_of_their_stream() -> None:
    one = discrete_gaussian(Stream(KEY, 1), 40.0, (200_000,))
    assert one.dtype == torch.int64
    assert torch.equal(one, discrete_gaussian(Stream(KEY, 1), 40.0, (200_000,)))
    other = discrete_gaussian(Stream(KEY, 2), 40.0, (200_000,))
    for shifted in (other, one.roll(1), one.roll(7)):
        assert abs(np.corrcoef(one.numpy(), shifted.numpy())[0, 1]) < 5 / np.sqrt(200_000)
    assert discrete_gaussian(Stream(KEY), 2.0, ()).shape == ()
    assert discrete_gaussian(Stream(KEY), 2.0, (0, 3)).shape == (0, 3)


@given(st.lists(st.tuples(WORD, WORD), min_size=1), WORD, WORD)
def test_a_place_is_that_among_whole_thresholds(
    thresholds: list[tuple[int, int]], first: int, second: int
) -> None:
    ordered = sorted(thresholds)
    high, low = (np.array(half, np.uint64) for half in zip(*ordered, strict=True))
    whole = [(h << 64) + low_half for h, low_half in ordered]
    for upper in (first, ordered[0][0], ordered[-1][0]):
        want = bisect_right(whole, (upper << 64) + second)
        assert located(Table(0, high, low), upper, second) == want


@pytest.mark.parametrize("above", [0, 1])
def test_where_the_first_word_cannot_decide_the_second_does(above: int) -> None:
    first, second = (int(word) for word in Stream(KEY, "tie").words(2))
    high = np.array([first - 1, first, first, first + 1], np.uint64)
    low = np.array([0, 5, second + above, 0], np.uint64)
    assert draw(Table(-7, high, low), Stream(KEY, "tie"), 1).tolist() == [-7 + 3 - above]


@given(st.lists(st.integers(1, 2**256), min_size=2, max_size=40), st.integers(-50, 50))
def test_thresholds_are_rounded_down_by_less_than_one(weights: list[int], lowest: int) -> None:
    table, total = tabulated(weights, lowest), sum(weights)
    assert table.lowest == lowest
    assert len(table.high) == len(weights) - 1
    for i, (high, low) in enumerate(zip(table.high, table.low, strict=True)):
        short = (sum(weights[: i + 1]) << 128) - ((int(high) << 64) + int(low)) * total
        assert 0 <= short < total


@pytest.mark.parametrize("sigma", [0.0, -1.0, 0.49, 2.0**16 + 1, float("nan"), float("inf")])
def test_a_grid_that_does_not_fit_is_refused(sigma: float) -> None:
    with pytest.raises(PrivacyError, match=r"from 0\.5 to 65536$"):
        discrete_gaussian(Stream(KEY), sigma, (3,))
