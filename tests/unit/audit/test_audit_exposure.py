"""Exposure against its definition, and against the distribution that losses were drawn from."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from atoll.audit.exposure import exposures


@given(st.integers(0, 40), st.integers(-3, 43))
@settings(max_examples=40)
def test_bits_are_by_rank(seed: int, place: int) -> None:
    others = np.random.default_rng(seed).permutation(40).astype(float)
    # Among others 0 … 39, a loss of `place` comes after those that are smaller or the same.
    better = min(max(place + 1, 0), 40)
    (found,) = exposures([float(place)], others.tolist())
    assert found.rank == 1 + better
    assert found.bits == pytest.approx(math.log2(41) - math.log2(1 + better))


@pytest.mark.parametrize("deviations", [0.0, -2.0, -6.0, -9.0])
def test_the_fit_goes_on_beyond_the_first_rank(deviations: float) -> None:
    others = np.random.default_rng(1).normal(50, 3, size=4000)
    (found,) = exposures([50 + 3 * deviations], others.tolist())
    truth = -norm.logcdf(deviations) / math.log(2)
    assert found.fitted == pytest.approx(truth, rel=0.2, abs=0.1)
    if deviations <= -6:
        assert found.bits == pytest.approx(math.log2(4001))
        assert found.fitted > found.bits
