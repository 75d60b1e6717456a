"""ε against accountants of others, closed forms, and what must never be said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import pytest
from dp_accounting.pld import privacy_loss_distribution as losses
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants.analysis.rdp import compute_rdp
from scipy.optimize import brentq
from scipy.stats import norm

from atoll.accounting import (
    Everyone,
    Fixed,
    InTurns,
    Poisson,
    Present,
    Release,
    Sampling,
    Spent,
    Way,
    noise_for,
    solve,
    spent,
)
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


EVERY: list[Sampling] = [
    Poisson(rate=0.5), Poisson(rate=0.5, cap=6, population=10), Everyone(), Present(), InTurns(),
    Fixed(size=3, population=10),
]  # fmt: skip


@pytest.mark.parametrize("sampling", EVERY, ids=str)
def test_very_little_noise_is_a_very_large_epsilon_or_none_at_all(sampling: Sampling) -> None:
    for noise in (5e-324, 1e-160, 1e-8, 1e-6, 9e-4):
        assert spent(_of(noise, sampling, 3), 1e-5).epsilon == math.inf
    # Of Gaussians, 3 · μ² / 2 is what is lost on average.
    assert 1.4e6 < spent(_of(1e-3, sampling, 3), 1e-5).epsilon < 2e7


@pytest.mark.parametrize("sampling", EVERY, ids=str)
def test_very_much_noise_is_a_very_small_epsilon(sampling: Sampling) -> None:
    most = spent(_of(1e6, sampling, 3), 1e-5).epsilon
    assert 0 <= most < 1e-5
    assert spent(_of(1e300, sampling, 3), 1e-5).epsilon == most


def test_neighbours_have_zeros_where_turns_or_the_number_of_rows_are_known() -> None:
    turns, rows = _of(2.0, InTurns(), 1), _of(2.0, Poisson(rate=0.1), 4, "example")
    assert spent(turns, 1e-5).adjacency == spent(rows, 1e-5).adjacency == "zero-out"
    assert spent(turns, 1e-5).epsilon == spent(_of(2.0, Everyone(), 1), 1e-5).epsilon
    assert spent(rows, 1e-5).epsilon == spent(_of(2.0, Poisson(rate=0.1), 4), 1e-5).epsilon
    assert spent(turns + _of(2.0, Poisson(rate=0.1), 4), 1e-5).adjacency == "zero-out"
    assert spent(_of(0.0, InTurns(), 1), 1e-5).adjacency == "zero-out"
    present = spent(_of(2.0, Present(), 1), 1e-5)
    assert present == replace(spent(_of(2.0, Everyone(), 1), 1e-5), adjacency="zero-out")


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


@pytest.mark.parametrize("cap", [150, 100])
def test_a_cap_is_solved_for_in_few_looks_at_it(cap: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sampling, looks = Poisson(rate=0.1, cap=cap, population=1000), list[float]()

    def seen(releases: Sequence[Release], delta: float, *, grid: float) -> Spent:
        fine = grid == 1e-4 and releases[0].sampling == sampling
        looks.extend([releases[0].noise_multiplier] * fine)
        return spent(releases, delta, grid=grid)

    monkeypatch.setattr(solve, "spent", seen)
    noise = noise_for(lambda z: _of(z, sampling, 100), epsilon=2.0, delta=1e-6)
    assert len(looks) <= 2
    assert spent(_of(noise, sampling, 100), 1e-6).epsilon <= 2.0
    assert spent(_of(noise - 0.001, sampling, 100), 1e-6).epsilon > 2.0


@pytest.mark.parametrize("epsilon", [1e300, 1e12])
def test_a_promise_that_any_noise_keeps(epsilon: float) -> None:
    assert noise_for(lambda z: _of(z, Poisson(rate=0.3), 3), epsilon=epsilon, delta=1e-5) == 1e-3
    assert noise_for(lambda z: [], epsilon=8.0, delta=1e-5) == 1e-3


@pytest.mark.parametrize("delta", [1e-12, 0.01, 0.09])
def test_an_unusual_delta_is_solved_for(delta: float) -> None:
    sampling = Poisson(rate=0.3, cap=30, population=40)
    noise = noise_for(lambda z: _of(z, sampling, 3), epsilon=20.0, delta=delta)
    assert 19.5 < spent(_of(noise, sampling, 3), delta).epsilon <= 20.0


def test_a_promise_that_no_noise_keeps() -> None:
    with pytest.raises(PrivacyError, match="no noise gives epsilon"):
        noise_for(lambda z: _of(z, Everyone(), 2**31), epsilon=1e-6, delta=1e-12)


def _rows(noise: float, steps: int = 1) -> Release:
    ways = (Way(rate=0.5, steps=2 * steps), Way(rate=0.05, steps=40 * steps))
    return Release(unit="example", noise_multiplier=noise, sampling=Poisson(rate=1.0), steps=steps,
                   ways=ways)  # fmt: skip


def _composed(*parts: tuple[float, float, int]) -> float:
    """Of (rate, noise, steps), by the accountant itself."""
    found = [
        losses.from_gaussian_mechanism(noise, sampling_prob=rate).self_compose(steps)
        for rate, noise, steps in parts
    ]
    return float(reduce(lambda a, b: a.compose(b), found).get_epsilon_for_delta(1e-5))


# With little noise many steps cost most, with more noise the largest rate.
@pytest.mark.parametrize("noise", [0.35, 0.6, 1.0, 4.0])
def test_rows_that_are_drawn_in_one_of_several_ways_pay_for_the_dearest(noise: float) -> None:
    each = [_composed((rate, noise, 3 * n)) for rate, n in ((1.0, 1), (0.5, 2), (0.05, 40))]
    assert spent([_rows(noise)] * 3, 1e-5).epsilon == pytest.approx(max(each), rel=1e-3)
    # However the steps of a run are written down, its rows stay with their client.
    parts = [_rows(noise), _rows(noise, 2)]
    assert spent(parts, 1e-5) == spent([_rows(noise)] * 3, 1e-5)
    assert _rows(noise).times(3) == _rows(noise, 3)


def test_rows_may_be_drawn_in_another_way_in_another_run() -> None:
    """Two runs of other noise; of too many, as often and by as large a rate as any row."""
    ways, whole = ((1.0, 1), (0.5, 2), (0.05, 40)), [0.8, 1.0, 1.2, 1.4]
    each = [_composed((a, 0.8, n), (b, 1.0, m)) for a, n in ways for b, m in ways]
    two = spent([_rows(noise) for noise in whole[:2]], 1e-5)
    assert two.epsilon == pytest.approx(max(each), rel=1e-3)
    many = spent([_rows(noise) for noise in whole], 1e-5)
    assert many.epsilon == pytest.approx(_composed(*((1.0, x, 40) for x in whole)), rel=1e-3)


def test_a_release_in_one_way_is_written_as_it_always_was() -> None:
    one = Release(unit="example", noise_multiplier=1.0, sampling=Poisson(rate=0.5), steps=3)
    assert one.model_dump(mode="json") == {
        "unit": "example", "noise_multiplier": 1.0, "steps": 3,
        "sampling": {"kind": "poisson", "rate": 0.5, "cap": None, "population": None},
    }  # fmt: skip
    several = _rows(1.0)
    assert Release.model_validate_json(several.model_dump_json()) == several


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
