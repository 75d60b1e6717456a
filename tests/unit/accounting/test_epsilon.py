"""ε against accountants of others, closed forms, and what must never be said."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants.analysis.rdp import compute_rdp
from scipy.optimize import brentq
from scipy.stats import norm

from atoll.accounting import Everyone, Fixed, Poisson, Release, Sampling, noise_for, spent
from atoll.errors import PrivacyError

# q, σ, T, δ -> ε (PLD, two grids agree), and the bounds of another code base (PRV accountant).
REFERENCE = [
    (0.01, 1.0, 1000, 1e-5, 1.82824, 1.8181, 1.8384),
    (0.1, 1.2, 100, 1e-5, 5.07509, 5.0648, 5.0855),
    (1.0, 4.0, 50, 1e-5, 8.59587, 8.5855, 8.6063),
    (0.05, 0.8, 500, 1e-6, 13.55622, 13.5456, 13.5669),
    (1.0, 10.0, 1, 1e-5, 0.34067, 0.3306, 0.3507),
    (0.01, 5.0, 100, 1e-9, 0.10703, 0.0971, 0.1171),
]


def _of(noise: float, sampling: Sampling, steps: int, unit: str = "client") -> list[Release]:
    return [Release(unit=unit, noise_multiplier=noise, sampling=sampling, steps=steps)]  # type: ignore[arg-type]


def _closed_form(noise: float, delta: float) -> float:
    """Balle and Wang 2018, Theorem 8, for sensitivity 1."""

    def excess(epsilon: float) -> float:
        a, b = 1 / (2 * noise), epsilon * noise
        return float(norm.cdf(a - b) - math.exp(epsilon) * norm.cdf(-a - b)) - delta

    return float(brentq(excess, 0, 100))


@pytest.mark.parametrize(("rate", "noise", "steps", "delta", "want", "low", "high"), REFERENCE)
def test_epsilon_of_poisson_samples(
    rate: float, noise: float, steps: int, delta: float, want: float, low: float, high: float
) -> None:
    found = spent(_of(noise, Poisson(rate=rate), steps), delta)
    assert found.epsilon == pytest.approx(want, abs=1e-3)
    assert low <= found.epsilon <= high
    accountant = "PLD" if rate < 1 else "closed form"
    assert (found.adjacency, found.accountant) == ("add-or-remove-one", accountant)
    if rate == 1:
        assert found.epsilon == pytest.approx(
            _closed_form(noise / math.sqrt(steps), delta), abs=1e-5
        )


@pytest.mark.parametrize(("rate", "noise", "steps", "delta"), [row[:4] for row in REFERENCE[:4]])
def test_epsilon_within_the_bounds_of_another_accountant(
    rate: float, noise: float, steps: int, delta: float
) -> None:
    from prv_accountant import PRVAccountant
    from prv_accountant.privacy_random_variables import (
        PoissonSubsampledGaussianMechanism as Mechanism,
    )

    prv = Mechanism(noise_multiplier=noise, sampling_probability=rate)
    accountant = PRVAccountant(
        prvs=prv, max_self_compositions=steps, eps_error=0.01, delta_error=delta / 1000
    )
    low, _, high = accountant.compute_epsilon(delta=delta, num_self_compositions=steps)
    found = spent(_of(noise, Poisson(rate=rate), steps), delta).epsilon
    assert low <= found <= high


def test_another_sampler_is_another_epsilon() -> None:
    def at(sampling: Sampling) -> float:
        return spent(_of(1.2, sampling, 100), 1e-5).epsilon

    assert at(Everyone()) == pytest.approx(_closed_form(1.2 / 10, 1e-5), abs=1e-4)
    assert at(Everyone()) >= 69.4
    assert at(Poisson(rate=0.1, cap=150, population=1000)) == pytest.approx(5.075, abs=1e-3)
    assert at(Poisson(rate=0.1, cap=100, population=1000)) == pytest.approx(17.31, abs=1e-2)
    assert at(Poisson(rate=0.1, cap=1000, population=1000)) == at(Poisson(rate=0.1))


def test_samples_of_a_fixed_size_replace_one_at_twice_the_distance() -> None:
    found = spent(_of(1.2, Fixed(size=100, population=1000), 100), 1e-5)
    assert (found.adjacency, found.accountant) == ("replace-one", "RDP")
    assert found.epsilon >= 11.18
    # All of them: the Gaussian mechanism at a distance of 2, without chance.
    whole = spent(_of(8.0, Fixed(size=10, population=10), 1), 1e-5)
    exact = _closed_form(4.0, 1e-5)
    assert exact <= whole.epsilon <= 1.2 * exact


def test_fixed_sizes_beside_other_samples_count_without_chance() -> None:
    mixed = _of(2.0, Fixed(size=10, population=100), 4) + _of(3.0, Everyone(), 9)
    found = spent(mixed, 1e-5)
    assert found.adjacency == "add-or-remove-one"
    assert found.epsilon == pytest.approx(
        _closed_form(1 / math.sqrt(4 / 4 + 9 / 9), 1e-5), abs=1e-3
    )


@pytest.mark.long
def test_very_little_noise_is_a_very_large_epsilon() -> None:
    found = spent(_of(1e-4, Poisson(rate=0.5), 3) + _of(1e-3, Everyone(), 2), 1e-5).epsilon
    assert 1e8 < found < math.inf


def test_nothing_released_costs_nothing_and_no_noise_costs_all() -> None:
    assert spent([], 1e-5).epsilon == 0
    assert spent(_of(0.0, Everyone(), 1), 1e-5).epsilon == math.inf
    assert spent(_of(0.0, Fixed(size=1, population=2), 1), 1e-5).epsilon == math.inf


@settings(max_examples=4)
@given(
    rate=st.floats(0.01, 0.5),
    noise=st.floats(0.7, 4),
    steps=st.integers(1, 60),
    more=st.integers(1, 30),
)
def test_more_releases_cost_more_and_never_more_than_renyi_says(
    rate: float, noise: float, steps: int, more: int
) -> None:
    sampling = Poisson(rate=rate)
    one = spent(_of(noise, sampling, steps), 1e-6).epsilon
    two = spent(_of(noise, sampling, steps) + _of(noise, sampling, more), 1e-6).epsilon
    assert one <= two + 1e-9
    orders = [1.25, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
    rdp = compute_rdp(q=rate, noise_multiplier=noise, steps=steps, orders=orders)
    # Canonne, Kamath and Steinke 2020, Proposition 12.
    bounds = [
        r + math.log(1 - 1 / a) - math.log(1e-6 * a) / (a - 1)
        for a, r in zip(orders, rdp, strict=True)
    ]
    assert one <= min(bounds) + 1e-3


@pytest.mark.parametrize(
    ("sampling", "epsilon"),
    [
        (Poisson(rate=0.1), 8.0),
        (Poisson(rate=0.1), 0.5),
        (Everyone(), 2.0),
        pytest.param(Fixed(size=10, population=100), 8.0, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_solved_noise_is_the_least_that_keeps_the_promise(
    epsilon: float, sampling: Sampling
) -> None:
    noise = noise_for(lambda z: _of(z, sampling, 20), epsilon=epsilon, delta=1e-5)
    assert float(f"{noise:.4g}") == noise
    assert spent(_of(noise, sampling, 20), 1e-5).epsilon <= epsilon
    assert spent(_of(noise * 0.999, sampling, 20), 1e-5).epsilon > epsilon


def test_a_promise_that_no_noise_keeps() -> None:
    with pytest.raises(PrivacyError, match="no noise gives epsilon"):
        noise_for(lambda z: _of(z, Everyone(), 2**31), epsilon=1e-6, delta=1e-12)


def test_a_release_is_checked() -> None:
    for bad in (
        {"rate": 0.0}, {"rate": 1.1}, {"rate": math.nan}, {"rate": 0.1, "cap": 3},
        {"rate": 0.1, "population": 3}, {"rate": "0.1"},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"rate|cap|population"):
            Poisson.model_validate(bad)
    with pytest.raises(ValueError, match="3 cannot be drawn of 2"):
        Fixed(size=3, population=2)
    release = _of(1.5, Poisson(rate=0.1, cap=5, population=10), 3)[0]
    assert Release.model_validate_json(release.model_dump_json()) == release
