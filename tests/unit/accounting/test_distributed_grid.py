"""The grid of distributed noise: fine enough, coarse enough, and what does not fit is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from atoll.accounting.grid import BEYOND, Mechanism, Plan, Sum, planned, rounded_norm
from atoll.errors import ConfigError, PrivacyError


@st.composite
def _sums(draw: st.DrawFn) -> Sum:
    asked = draw(st.integers(1, 2000))
    floor = draw(st.integers(1, asked))
    colluding = draw(st.integers(0, floor - 1))
    clip = draw(st.floats(1e-3, 1e3))
    return Sum(clip, draw(st.integers(1, 10**7)), asked, floor, colluding)


@given(_sums(), st.floats(0.05, 20.0), st.sampled_from(["discrete_gaussian", "skellam"]))
@settings(deadline=None)
def test_what_is_planned_has_its_noise_and_fits(
    total: Sum, multiplier: float, mechanism: Mechanism
) -> None:
    try:
        plan = planned(total, multiplier, mechanism)
    except PrivacyError:
        # Only where many clients' noise has to be small on a grid that the modulus keeps coarse.
        assume(False)
        return
    honest = total.floor - total.colluding
    total_noise = plan.sigma * plan.spacing * math.sqrt(honest)
    assert total_noise == pytest.approx(multiplier * total.clip)
    assert math.frexp(plan.spacing)[0] == 0.5
    assert 1.5 <= plan.sigma <= 2.0**16
    assert plan.reach < plan.top
    assert total.asked * (plan.top + 1) < 2**31 <= 2 * total.asked * (plan.top + 1)
    if total.values >= 10_000 and plan.sigma < 2.0**15 and total.asked < 500:
        assert plan.norm * plan.spacing < 1.002 * total.clip


@pytest.mark.parametrize("clients", [10, 100, 1000])
def test_adapters_of_usual_sizes_fit_on_a_fine_grid(clients: int) -> None:
    for values in (10_000, 300_000, 10_000_000):
        for multiplier in (0.3, 1.0, 5.0):
            plan = planned(Sum(1.0, values, clients, clients), multiplier, "skellam")
            assert plan.sigma >= 2
            assert plan.norm * plan.spacing < 1.01


@pytest.mark.parametrize("sigma", [2.0, 40.0])
def test_reach_is_left_less_often_than_said(sigma: float) -> None:
    plan = Plan(Sum(clip=1.0, values=1000, asked=20, floor=20), "skellam", 2.0**-10, sigma)
    noise = plan.reach - plan.norm
    # Chernoff's bound, with the best exponent for the skellam law and for the Gaussian.
    slope = math.asinh(noise / sigma**2)
    skellam = sigma**2 * (math.cosh(slope) - 1) - slope * noise
    for exponent in (skellam, -(noise**2) / (2 * sigma**2)):
        assert math.log(20 * 1000 * 2) + exponent < math.log(BEYOND)
    bernstein = -(noise**2) / (2 * sigma**2 + 2 * noise / 3)
    assert math.log(20 * 1000 * 2) + bernstein == pytest.approx(math.log(BEYOND))


@given(st.lists(st.integers(-30, 30), min_size=1, max_size=30))
def test_a_rounded_norm_is_that_of_the_paper(values: list[int]) -> None:
    norm, count = float(np.linalg.norm(values)), len(values)
    loose = norm + math.sqrt(count)
    tight = norm**2 + count / 4 + math.sqrt(2 * 0.5) * (norm + math.sqrt(count) / 2)
    assert rounded_norm(norm, count) == pytest.approx(min(loose, math.sqrt(tight)))
    assert rounded_norm(norm, count) > norm


def test_a_grid_that_is_too_coarse_is_refused() -> None:
    total = Sum(clip=1.0, values=100, asked=10, floor=10)
    Plan(total, "discrete_gaussian", 2.0**-6, 1.5)
    for sigma in (1.49, 0.7, 0.0, math.nan):
        with pytest.raises(PrivacyError, match=r"noise is .* grid units, .* at least 1\.5 are"):
            Plan(total, "discrete_gaussian", 2.0**-6, sigma)


def test_a_sum_that_could_wrap_around_is_refused() -> None:
    total = Sum(clip=1.0, values=100, asked=1000, floor=1000)
    with pytest.raises(PrivacyError, match=r"reaches 2\.1e\+06 grid .* leave 2097151 to each"):
        Plan(total, "skellam", 2.0**-21, 100.0)
    assert Plan(total, "skellam", 2.0**-20, 100.0).reach > 2**20


@pytest.mark.parametrize(("values", "multiplier"), [(10**7, 0.01), (10**11, 50.0)])
def test_where_no_grid_fits_it_says_so(values: int, multiplier: float) -> None:
    total = Sum(clip=1.0, values=values, asked=200_000, floor=200_000)
    with pytest.raises(PrivacyError, match="fewer than 200000 clients a round"):
        planned(total, multiplier, "skellam")


@pytest.mark.parametrize(
    "wrong",
    [(0.0, 1, 1, 1, 0), (math.nan, 1, 1, 1, 0), (1.0, 0, 1, 1, 0), (1.0, 1, 1, 2, 0),
     (1.0, 1, 3, 2, 2), (1.0, 1, 3, 2, -1), (1.0, 1, 1, 0, 0)],
)  # fmt: skip
def test_sums_that_make_no_sense_are_refused(wrong: tuple[float, int, int, int, int]) -> None:
    with pytest.raises(ConfigError, match="mechanism 'distributed'"):
        Sum(*wrong)


@pytest.mark.parametrize("multiplier", [0.0, -1.0, math.inf, math.nan])
def test_noise_that_makes_no_sense_is_refused(multiplier: float) -> None:
    with pytest.raises(ConfigError, match="noise_multiplier is"):
        planned(Sum(1.0, 1, 1, 1), multiplier, "skellam")
