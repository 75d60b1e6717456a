"""Rounding at random: no bias, and never longer than was agreed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from atoll.errors import PrivacyError
from atoll.noise import Stream
from atoll.noise.rounding import rounded

KEY = bytes(range(32))


def _bound(norm: float, values: int) -> float:
    """Kairouz, Liu, Steinke 2021, Theorem 1, in grid units and with beta = exp(-1/2)."""
    root = math.sqrt(values)
    return min(norm + root, math.sqrt(norm**2 + values / 4 + (norm + root / 2)))


@given(st.lists(st.floats(-1e4, 1e4), max_size=40), st.integers(0, 10**6))
@settings(deadline=None)
def test_a_rounded_vector_has_neighbours_and_keeps_its_bound(values: list[float], at: int) -> None:
    exact = torch.tensor(values, dtype=torch.float64)
    norm = float(exact.norm()) * (1 + 1e-12)
    got = rounded(Stream(KEY, at), exact, _bound(norm, len(values)))
    assert got.dtype == torch.int64
    assert bool(((got == exact.floor()) | (got == exact.ceil())).all())
    assert sum(x * x for x in got.tolist()) <= _bound(norm, len(values)) ** 2


def test_half_of_a_halfs_are_too_long_and_are_drawn_again() -> None:
    # Of 100 halves, rounded, a number k of ones has L2 norm √k: a bound of 7 keeps k ≤ 49.
    halves = torch.full((100,), 0.5, dtype=torch.float64)
    for at in range(50):
        assert int(rounded(Stream(KEY, at), halves, 7.0).sum()) <= 49


def test_it_has_no_bias() -> None:
    exact = torch.linspace(-3.3, 3.3, 50, dtype=torch.float64)
    bound = _bound(float(exact.norm()) + 1e-9, 50)
    got = np.stack([rounded(Stream(KEY, at), exact, bound).numpy() for at in range(4000)])
    share = np.modf(exact.numpy())[0] % 1
    error = (got.mean(0) - exact.numpy()) / np.sqrt(share * (1 - share) / 4000)
    assert stats.kstest(error, "norm").pvalue > 1e-3


def test_the_shape_stays() -> None:
    assert rounded(Stream(KEY), torch.zeros(2, 3), 5.0).tolist() == [[0] * 3] * 2
    assert rounded(Stream(KEY), torch.zeros(0), 5.0).shape == (0,)


@pytest.mark.parametrize("wrong", [7.1, -1e300, float("inf"), float("nan")])
def test_what_is_longer_than_its_bound_is_refused(wrong: float) -> None:
    with pytest.raises(PrivacyError, match="clip it to the norm that the noise was planned for"):
        rounded(Stream(KEY), torch.tensor([0.0, wrong]), 7.0)


def test_squares_that_overflow_are_long_too() -> None:
    # Four times 2⁶² is nothing in 64 bits.
    with pytest.raises(PrivacyError, match="cannot be rounded"):
        rounded(Stream(KEY), torch.full((4,), 2.0**31), 2.0**30)


def test_what_cannot_be_rounded_within_its_bound_is_refused() -> None:
    with pytest.raises(PrivacyError, match=r"L2 norm 10 grid units cannot be rounded to .* 10 or"):
        rounded(Stream(KEY), torch.full((10_000,), 0.1), 10.0)
