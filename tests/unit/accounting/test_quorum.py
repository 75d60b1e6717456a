"""What a quorum adds to δ, beside the run's outcomes counted one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from atoll.accounting.quorum import quorum_delta


@pytest.mark.parametrize(("others", "rate", "rounds"), [(39, 0.3, 3), (199, 0.2, 50)])
def test_it_is_the_chance_of_cohorts_that_one_client_decides(
    others: int, rate: float, rounds: int
) -> None:
    decides = [size in (4, 5) for size in range(31)]
    found = quorum_delta(others=others, rate=rate, rounds=rounds, decides=decides)
    a_round = rate * (binom.pmf(4, others, rate) + binom.pmf(5, others, rate))
    # With its client a run meets one with that chance; without it, the bound is a little larger.
    met = 1 - (1 - a_round) ** rounds
    moments = binom.pmf(range(rounds + 1), rounds, a_round / rate) @ (1 - rate) ** -np.arange(
        rounds + 1.0
    )
    assert found == pytest.approx(moments - 1, rel=1e-9)
    assert found >= met


def test_what_is_certain_costs_all_and_no_more() -> None:
    decides = [True] * 12
    assert quorum_delta(others=11, rate=0.5, rounds=6000, decides=decides) == pytest.approx(1.0)


def test_the_last_one_stands_for_all_larger_cohorts() -> None:
    decides = [False] * 10 + [True]
    found = quorum_delta(others=39, rate=0.3, rounds=1, decides=decides)
    assert found == pytest.approx(0.3 / 0.7 * binom.sf(9, 39, 0.3), rel=1e-9)


@pytest.mark.parametrize("gap", [5.0, 100.0])
def test_no_event_of_a_round_says_more(gap: float) -> None:
    """One release of a sum of four clients or more, each of 1, among eight; densities on a line,
    with the sum of those who decide as far away as `gap`."""
    others, rate, floor, sigma, epsilon = 7, 0.2, 4, 2.0, 1.0
    line = np.linspace(-60, 160, 440_001)
    step = line[1] - line[0]

    def density(beside: bool, quorum: bool) -> np.ndarray:
        found = np.zeros_like(line)
        for size in range(others + 1):
            for coin in (0, 1) if beside else (0,):
                chance = binom.pmf(size, others, rate)
                chance *= (rate if coin else 1 - rate) if beside else 1
                opened = not quorum or (size + coin >= floor)
                summed = size + coin if not quorum or size >= floor else gap
                found += chance * norm.pdf(line, summed if opened else 0, sigma)
        return found

    def delta(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.maximum(one - math.exp(epsilon) * other, 0).sum() * step)

    decides = [size == floor - 1 for size in range(others + 1)]
    more = quorum_delta(others=others, rate=rate, rounds=1, decides=decides)
    with_it, without = density(True, True), density(False, True)
    usual = max(
        delta(density(True, False), density(False, False)),
        delta(density(False, False), density(True, False)),
        _sampled(rate, sigma, epsilon),
    )
    assert delta(with_it, without) <= usual + more
    assert delta(without, with_it) <= usual + more
    assert delta(with_it, without) > usual
    assert more < 0.05


def _sampled(rate: float, sigma: float, epsilon: float) -> float:
    """The larger δ of a Gaussian to which a coin adds 1, without a quorum."""
    line = np.linspace(-40, 41, 200_001)
    zero, one = norm.pdf(line, 0, sigma), norm.pdf(line, 1, sigma)
    mixed, step = (1 - rate) * zero + rate * one, line[1] - line[0]
    return max(
        float(np.maximum(a - math.exp(epsilon) * b, 0).sum() * step)
        for a, b in ((mixed, zero), (zero, mixed))
    )
