"""Secret cohorts: how large they are, and that a cap takes nobody for where they stand."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from scipy.stats import binom, chisquare

from atoll.accounting import Poisson
from atoll.config.federation import Federation
from atoll.config.privacy import Privacy
from atoll.protection.cohorts import drawing_of, drawn


def _drawing(population: int, share: float, **privacy: float) -> Poisson:
    federation = Federation(fraction_train=share)
    found = drawing_of(Privacy(epsilon=8.0, **privacy), federation, population)
    assert found.expected == pytest.approx(share * population)
    sampling = found.sampling
    assert isinstance(sampling, Poisson)
    assert found.most == (sampling.cap or population)
    return sampling


@pytest.mark.parametrize(("population", "share"), [(1000, 0.1), (200, 0.05), (10_000, 0.01)])
def test_the_usual_cap_is_five_deviations_above_the_mean(population: int, share: float) -> None:
    """So that it is met in hardly a run, and costs next to nothing of epsilon."""
    sampling, mean = _drawing(population, share), share * population
    assert sampling.cap == math.ceil(mean + 5 * math.sqrt(mean))
    assert (sampling.rate, sampling.population) == (share, population)
    assert binom.sf(sampling.cap, population, share) < 1e-5


def test_a_cap_that_all_clients_stay_below_is_none() -> None:
    # 10 + 5 · √10 is more than 20.
    assert _drawing(20, 0.5) == Poisson(rate=0.5)
    assert _drawing(20, 0.5, cap=12) == Poisson(rate=0.5, cap=12, population=20)


def test_of_more_than_the_cap_all_are_kept_alike() -> None:
    roster, sampling = tuple("abcdefgh"), Poisson(rate=0.9, cap=3, population=8)
    cohorts = [drawn(number.to_bytes(32, "big"), sampling, roster) for number in range(2000)]
    sizes = Counter(map(len, cohorts))
    assert max(sizes) == 3
    # Fewer than three of eight coins of 0.9: once in 43,000 cohorts.
    assert sizes[3] > 1990
    counts = Counter(client for cohort in cohorts for client in cohort)
    assert chisquare([counts[client] for client in roster]).pvalue > 1e-3
