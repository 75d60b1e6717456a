"""Noise in shares: its ε against exact distributions of small sums, and other accountants."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import dp_accounting
import numpy as np
import pytest
from dp_accounting.rdp import RdpAccountant
from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy import stats
from scipy.optimize import brentq

from atoll.accounting.distributed import Guarantee, guaranteed, plan_for, released
from atoll.accounting.grid import Mechanism, Sum, planned
from atoll.accounting.shares import Shared, concentrated, divergence, tau
from atoll.errors import PrivacyError

MECHANISMS: tuple[Mechanism, ...] = ("discrete_gaussian", "skellam")
DELTA = 1e-5
REACH = 200
Masses = NDArray[np.float64]


def _shared(mechanism: Mechanism, norm: float, sigma: float, survivors: int) -> Shared:
    return Shared(
        mechanism=mechanism, norm=norm, values=1, sigma=sigma, asked=survivors, survivors=survivors,
        population=survivors,
    )  # fmt: skip


def _guaranteed(releases: Iterable[Shared], population: int, delta: float) -> Guarantee:
    """Of draws from so many clients."""
    told = [one.model_copy(update={"population": population}) for one in releases]
    return guaranteed(told, delta)


def _noise(mechanism: Mechanism, sigma: float, clients: int) -> Masses:
    """P(sum of the shares = x) for |x| ≤ REACH, by convolution."""
    places = np.arange(-REACH, REACH + 1)
    if mechanism == "skellam":
        return np.asarray(stats.skellam(sigma**2 / 2 * clients, sigma**2 / 2 * clients).pmf(places))
    one = np.exp(-(places**2) / (2 * sigma**2))
    one /= one.sum()
    total = np.zeros(len(places))
    total[REACH] = 1.0
    for _ in range(clients):
        total = np.convolve(total, one, mode="same")
    return total


def _exact(pairs: list[tuple[Masses, Masses]], delta: float) -> float:
    """The smallest ε with P(S) ≤ e^ε Q(S) + δ, for the worst of the pairs."""

    def excess(epsilon: float) -> float:
        return max(np.maximum(p - math.exp(epsilon) * q, 0).sum() for p, q in pairs) - delta

    return float(brentq(excess, 0.0, 100.0)) if excess(0.0) > 0 else 0.0


def test_concentrated_epsilon_of_the_grids_that_were_measured() -> None:
    # One client's update is so long that a continuous Gaussian has ε = 0.5.
    def found(clients: int, sigma: float) -> float:
        norm = 0.5 * sigma * math.sqrt(clients)
        return concentrated(norm=norm, values=100_000, sigma=sigma, clients=clients)

    assert found(100, 1.0) == pytest.approx(0.673, abs=5e-4)
    assert found(100, 2.0) == pytest.approx(0.5, abs=1e-4)
    assert found(1000, 1.5) == pytest.approx(0.5, abs=1e-4)
    assert found(1000, 0.7) == pytest.approx(196.6, abs=0.05)


@pytest.mark.parametrize(("clients", "sigma"), [(2, 0.7), (5, 1.0), (10, 0.6)])
def test_tau_bounds_the_distance_to_one_discrete_gaussian(clients: int, sigma: float) -> None:
    total = _noise("discrete_gaussian", sigma, clients)
    places = np.arange(-REACH, REACH + 1)
    one = np.exp(-(places**2) / (2 * clients * sigma**2))
    one /= one.sum()
    near = np.abs(places) < 3 * sigma * math.sqrt(clients)
    gap = np.abs(np.log(total[near] / one[near])).max()
    want = 10 * sum(math.exp(-2 * math.pi**2 * sigma**2 * k / (k + 1)) for k in range(1, clients))
    assert tau(sigma, clients) == pytest.approx(want)
    assert gap <= tau(sigma, clients)


def test_one_and_a_half_grid_units_keep_tau_below_a_millionth() -> None:
    assert max(tau(1.5, clients) for clients in (2, 10, 1000, 1_000_000)) < 1e-6
    assert tau(1.0, 100) > 1e-6


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(("norm", "sigma", "clients"), [(4, 2.0, 5), (1, 1.5, 2), (15, 3.0, 4)])
def test_epsilon_covers_that_of_the_exact_distribution_and_is_near(
    mechanism: Mechanism, norm: int, sigma: float, clients: int
) -> None:
    noise = _noise(mechanism, sigma, clients)
    exact = _exact([(np.roll(noise, norm), noise)], DELTA)
    stated = _guaranteed([_shared(mechanism, norm, sigma, clients)], clients, DELTA).server
    # What is known of Skellam is loose where its variance is a few grid units.
    assert exact <= stated <= {"discrete_gaussian": 1.12, "skellam": 1.65}[mechanism] * exact


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_rounds_compose(mechanism: Mechanism) -> None:
    first, second = _noise(mechanism, 2.0, 4), _noise(mechanism, 2.0, 3)
    pair = (np.outer(np.roll(first, 3), np.roll(second, 3)), np.outer(first, second))
    rounds = [_shared(mechanism, 3, 2.0, 4), _shared(mechanism, 3, 2.0, 3)]
    stated = _guaranteed(rounds, 4, DELTA).server
    assert _exact([pair], DELTA) <= stated <= 1.25 * _exact([pair], DELTA)
    assert _guaranteed([], 4, DELTA).server == 0


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("epsilon", [0.3, 2.0, 9.0])
def test_fine_grids_are_as_concentrated_as_a_continuous_gaussian(
    mechanism: Mechanism, epsilon: float
) -> None:
    total = Sum(clip=0.3, values=300_000, asked=100, floor=80)
    plan = plan_for(total, mechanism, epsilon=epsilon, delta=1e-6, rounds=7)
    multiplier = plan.sigma * plan.spacing * math.sqrt(80) / 0.3
    accountant = RdpAccountant(np.concatenate([np.arange(1.1, 10, 0.01), np.arange(10, 2000)]))
    accountant.compose(dp_accounting.GaussianDpEvent(multiplier), 7)
    assert accountant.get_epsilon(1e-6) == pytest.approx(epsilon, rel=2e-3)
    got = _guaranteed([released(plan, 80, 1_000_000)] * 7, 1000, 1e-6)
    assert got.server <= epsilon
    assert got.server == pytest.approx(epsilon, rel=1e-4)
    assert _guaranteed([released(plan, 100, 1_000_000)] * 7, 1000, 1e-6).server < 0.95 * epsilon


def test_what_skellam_costs_more_than_a_gaussian() -> None:
    # 1000 grid units, and a variance of four times their square: below 1e-5.
    sigma, orders = 2000.0 / math.sqrt(50), np.arange(2.0, 100.0)
    shared = _shared("skellam", 1000.0, sigma, 50).model_copy(update={"values": 100_000})
    assert divergence(shared, 50)(orders) == pytest.approx(orders / 8, rel=1e-5)
    assert _guaranteed([shared], 50, 1e-5).server == pytest.approx(2.16572, rel=2e-3)
    gauss = _shared("discrete_gaussian", 1000.0, sigma, 50)
    assert _guaranteed([gauss], 50, 1e-5).server == pytest.approx(2.16572, abs=1e-4)


def test_those_who_may_collude_hide_nothing_from_the_server() -> None:
    full = _shared("skellam", 6.0, 2.0, 9)
    some = full.model_copy(update={"colluding": 5})
    fewer = _shared("skellam", 6.0, 2.0, 4)
    assert _guaranteed([some], 9, DELTA).server == _guaranteed([fewer], 9, DELTA).server
    assert _guaranteed([some], 100, DELTA).readers == _guaranteed([full], 100, DELTA).readers


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_readers_bound_covers_every_cohort_that_they_do_not_know(mechanism: Mechanism) -> None:
    # Two of six clients, each with +2 or −2 on one coordinate; the first has +2, −2 or nothing.
    noise = _noise(mechanism, 3.0, 2)

    def seen(rows: tuple[int, ...]) -> Masses:
        sums = [rows[i] + rows[j] for i, j in itertools.combinations(range(6), 2)]
        return np.asarray(np.mean([np.roll(noise, each) for each in sums], axis=0))

    pairs = []
    for others in itertools.combinations_with_replacement((2, -2), 5):
        for own in (2, -2):
            with_own, without = seen((own, *others)), seen((0, *others))
            pairs += [(with_own, without), (without, with_own)]
    release = _shared(mechanism, 2.0, 3.0, 2)
    got = _guaranteed([release], 6, DELTA)
    assert _exact(pairs, DELTA) <= got.readers <= got.server
    assert got.server == _guaranteed([release], 2, DELTA).readers


@pytest.mark.parametrize(("asked", "population"), [(10, 1000), (100, 1000), (50, 100)])
def test_readers_bound_is_near_that_of_sampling_without_replacement(
    asked: int, population: int
) -> None:
    gauss, skellam = (
        _shared(mechanism, 1000.0, 8000.0 / math.sqrt(asked), asked) for mechanism in MECHANISMS
    )
    accountant = RdpAccountant(
        [*range(2, 33), 40, 48, 64, 128, 256],
        neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE,
    )
    # Replacing one client moves a sum by twice the norm.
    gaussian = dp_accounting.GaussianDpEvent(4.0)
    event = dp_accounting.SampledWithoutReplacementDpEvent(population, asked, gaussian)
    accountant.compose(event, 20)
    want = accountant.get_epsilon(1e-6)
    got = _guaranteed([gauss] * 20, population, 1e-6)
    assert got.readers == pytest.approx(min(want, got.server), rel=1e-3)
    assert (
        got.readers <= _guaranteed([skellam] * 20, population, 1e-6).readers <= got.server * 1.003
    )


@pytest.mark.parametrize("norm", [7.0, 10.0])
def test_readers_bound_for_skellam_is_that_of_the_paper(norm: float) -> None:
    # Wang et al. 2019, Theorem 9, over Agarwal et al. 2021, Corollary 3.6, in plain floating point.
    rate, variance = 0.02, 400.0

    def base(j: int) -> float:
        distance = 2 * norm
        extra = ((2 * j - 1) * distance**2 + 6 * distance) / (4 * variance**2)
        return j * distance**2 / (2 * variance) + min(extra, 3 * distance / (2 * variance))

    def bound(order: int) -> float:
        total = 1 + rate**2 * math.comb(order, 2) * min(
            4 * (math.exp(base(2)) - 1), 2 * math.exp(base(2))
        )
        for j in range(3, order + 1):
            total += rate**j * math.comb(order, j) * 2 * math.exp((j - 1) * base(j))
        return math.log(total) / (order - 1)

    orders = np.arange(2, 33)
    divergences = np.array([bound(int(order)) for order in orders])
    epsilon, best = compute_epsilon(orders, divergences, 1e-3)
    assert best < 32
    shared = _shared("skellam", norm, 10.0, 4).model_copy(update={"asked": 4})
    assert _guaranteed([shared], 200, 1e-3).readers == pytest.approx(epsilon, rel=1e-9)


def test_skellam_is_bounded_at_whole_orders_and_by_chords_between() -> None:
    found = divergence(_shared("skellam", 4.0, 3.0, 5), 5)(np.array([1.5, 2.0, 2.25, 3.0, 40.0]))

    def paper(order: int) -> float:
        """Agarwal et al. 2021, Corollary 3.6, with one value of 4 and a variance of 45."""
        extra = min(((2 * order - 1) * 16 + 6 * 4) / (4 * 45**2), 3 * 4 / 90)
        return order * 16 / 90 + extra

    chord = (0.75 * 1 * paper(2) + 0.25 * 2 * paper(3)) / 1.25
    assert found == pytest.approx([paper(2), paper(2), chord, paper(3), paper(40)])


@pytest.mark.parametrize("order", [1.5, 2.25, 3.7, 6.5])
def test_no_exact_divergence_of_skellam_is_larger(order: float) -> None:
    noise, bound = _noise("skellam", 3.0, 5), divergence(_shared("skellam", 4.0, 3.0, 5), 5)
    one, other = np.log(np.roll(noise, 4)[80:-80]), np.log(noise[80:-80])
    exact = math.log(np.exp(order * one + (1 - order) * other).sum()) / (order - 1)
    assert exact <= float(bound(np.array([order]))[0]) <= 1.4 * exact


def test_the_gap_between_shares_and_one_gaussian_counts_for_readers() -> None:
    fine = _shared("discrete_gaussian", 10.0, 2.0, 3000)
    coarse = fine.model_copy(update={"sigma": 1.0, "norm": 5.0, "values": 20})
    one, other = (_guaranteed([each], 30_000, 1e-6).readers for each in (fine, coarse))
    assert other - one == pytest.approx(3 * 20 * tau(1.0, 3000), rel=0.05)


@pytest.mark.parametrize("survivors", [0, 79, 101])
def test_a_sum_of_too_few_is_not_unmasked(survivors: int) -> None:
    plan = planned(Sum(clip=1.0, values=100, asked=100, floor=80), 1.0, "skellam")
    with pytest.raises(PrivacyError, match=f"^{survivors} clients answered.* stays masked$"):
        released(plan, survivors, 1_000_000)


def test_a_release_is_plain_values() -> None:
    plan = planned(Sum(clip=1.0, values=100, asked=10, floor=8), 1.0, "skellam")
    release = released(plan, 9, 1_000_000)
    assert Shared.model_validate_json(release.model_dump_json()) == release
    for wrong in (
        {"sigma": 0.0}, {"survivors": 0}, {"kind": "fixed"}, {"norm": math.inf},
        {"survivors": 11}, {"colluding": 9}, {"colluding": -1}, {"asked": 8}, {"more": 1},
    ):  # fmt: skip
        with pytest.raises(ValidationError):
            Shared.model_validate({**release.model_dump(), **wrong})


def test_no_noise_is_enough_for_nothing() -> None:
    total = Sum(clip=1.0, values=100, asked=10, floor=8)
    with pytest.raises(PrivacyError, match="no noise gives epsilon 1e-09"):
        plan_for(total, "skellam", epsilon=1e-9, delta=1e-12, rounds=1)


def test_little_noise_that_no_grid_holds_becomes_more() -> None:
    # The modulus keeps the grid so coarse that 1.5 of its units are more than what ε asks for.
    total = Sum(clip=1.0, values=1_000_000, asked=500_000, floor=500_000)
    plan = plan_for(total, "skellam", epsilon=80.0, delta=1e-6, rounds=1)
    assert plan.sigma == pytest.approx(1.5, rel=1e-3)
    assert _guaranteed([released(plan, 500_000, 1_000_000)], 500_000, 1e-6).server < 40


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_little_and_much_noise_have_their_epsilon(mechanism: Mechanism) -> None:
    total = Sum(clip=1.0, values=10_000, asked=50, floor=40)
    epsilons = [
        _guaranteed([released(planned(total, noise, mechanism), 45, 1_000_000)], 1000, 1e-6)
        for noise in (0.05, 0.5, 5.0, 500.0, 50_000.0)
    ]
    for found in epsilons:
        assert 0 <= found.readers <= found.server
    ordered = [found.server for found in epsilons]
    assert ordered == sorted(ordered, reverse=True)
    assert ordered[0] > 200
    assert ordered[-1] < 1e-3
