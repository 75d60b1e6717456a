"""Rounds with correlated noise are one Gaussian release: values that were computed elsewhere."""

from __future__ import annotations

import pytest
from dp_accounting import GaussianDpEvent
from dp_accounting.pld import PLDAccountant

from atoll.accounting import noise_for, spent
from atoll.accounting.matrix import release

KNOWN = [(0.5, 10.9972), (1.0, 4.8866), (2.0, 2.2541), (4.0, 1.0607), (8.0, 0.5039)]


@pytest.mark.parametrize(("multiplier", "epsilon"), KNOWN)
def test_epsilon_of_a_run(multiplier: float, epsilon: float) -> None:
    made = release(multiplier, planned=6.1641)
    assert spent([made], 1e-6).epsilon == pytest.approx(epsilon, abs=5e-5)
    accountant = PLDAccountant()
    accountant.compose(GaussianDpEvent(multiplier))
    assert accountant.get_epsilon(1e-6) == pytest.approx(epsilon, abs=2e-4)


@pytest.mark.parametrize(("multiplier", "epsilon"), KNOWN)
def test_the_noise_of_a_promise(multiplier: float, epsilon: float) -> None:
    found = noise_for(lambda noise: [release(noise, planned=6.1641)], epsilon=epsilon, delta=1e-6)
    assert found == pytest.approx(multiplier, rel=5e-4)


def test_a_run_that_is_half_over_has_spent_less() -> None:
    whole, half = release(2.0, planned=6.0), release(2.0, planned=6.0, so_far=3.0)
    assert half.noise_multiplier == 4.0
    assert spent([half], 1e-6).epsilon == pytest.approx(1.0607, abs=5e-5)
    assert release(2.0, planned=6.0, so_far=6.0) == whole
