"""Local noise: the closed form written out, other accountants, and what a usual formula claims."""

from __future__ import annotations

import math

import pytest
from dp_accounting import GaussianDpEvent
from dp_accounting.gaussian_mechanism import get_epsilon_gaussian
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from prv_accountant import GaussianMechanism, PRVAccountant
from scipy.stats import norm

from atoll.accounting import Everyone, Release, Shared, altogether
from atoll.accounting.local import Neighbours, epsilon_of, sensitivity, sigma_for
from atoll.errors import ConfigError


def _delta(epsilon: float, noise: float) -> float:
    """Balle and Wang 2018, Theorem 8, for noise relative to the sensitivity."""
    return float(
        norm.cdf(1 / (2 * noise) - epsilon * noise)
        - math.exp(epsilon) * norm.cdf(-1 / (2 * noise) - epsilon * noise)
    )


def _flower(epsilon: float, sensitivity: float) -> float:
    """The standard deviation that Flower's LocalDpMod adds (at delta 1e-5, for any epsilon)."""
    return sensitivity * math.sqrt(2 * math.log(1.25 / 1e-5)) / epsilon


@pytest.mark.parametrize(("claimed", "true"), [(1, 0.75), (8, 7.91), (20, 25.4), (50, 96.4)])
def test_what_a_usual_formula_claims_and_what_is_true(claimed: float, true: float) -> None:
    sigma = _flower(claimed, 1.0)
    got = epsilon_of(sigma=sigma, delta=1e-5, clip=1.0, neighbours="zero-out", rounds=1)
    assert got == pytest.approx(true, rel=5e-3)


def test_a_clipping_norm_is_not_the_distance_of_any_two_updates() -> None:
    sigma = _flower(8.0, 1.0)
    got = epsilon_of(sigma=sigma, delta=1e-5, clip=1.0, neighbours="replace-one", rounds=1)
    assert got == pytest.approx(18.9, abs=0.05)
    assert (sensitivity(0.3, "replace-one"), sensitivity(0.3, "zero-out")) == (0.6, 0.3)


@given(
    st.floats(0.05, 60.0),
    st.floats(1e-9, 1e-2),
    st.floats(1e-3, 1e3),
    st.sampled_from(["replace-one", "zero-out"]),
    st.integers(1, 500),
)
@settings(deadline=None)
def test_sigma_and_epsilon_are_each_others_inverse_and_the_closed_form(
    epsilon: float, delta: float, clip: float, neighbours: Neighbours, rounds: int
) -> None:
    sigma = sigma_for(epsilon=epsilon, delta=delta, clip=clip, neighbours=neighbours, rounds=rounds)
    back = epsilon_of(sigma=sigma, delta=delta, clip=clip, neighbours=neighbours, rounds=rounds)
    assert back == pytest.approx(epsilon, rel=1e-6)
    distance = clip * (2 if neighbours == "replace-one" else 1)
    assert _delta(epsilon, sigma / distance / math.sqrt(rounds)) == pytest.approx(delta, rel=1e-4)


@pytest.mark.parametrize(("epsilon", "rounds"), [(1.0, 1), (8.0, 10), (3.0, 100)])
def test_rounds_compose_as_other_accountants_say(epsilon: float, rounds: int) -> None:
    sigma = sigma_for(
        epsilon=epsilon, delta=1e-5, clip=0.5, neighbours="replace-one", rounds=rounds
    )
    accountant = PLDAccountant()
    accountant.compose(GaussianDpEvent(sigma / 1.0), rounds)
    assert accountant.get_epsilon(1e-5) == pytest.approx(epsilon, abs=1e-3)
    low, _, high = PRVAccountant(
        prvs=GaussianMechanism(sigma / 1.0), max_self_compositions=rounds, eps_error=0.01,
        delta_error=1e-10,
    ).compute_epsilon(1e-5, rounds)  # fmt: skip
    assert low <= epsilon <= high
    made = Shared(
        mechanism="gaussian", norm=0.5, sigma=sigma, values=9, asked=4, survivors=1, population=8,
        steps=rounds,
    )  # fmt: skip
    assert altogether([made], 1e-5).epsilon == pytest.approx(epsilon, abs=1e-6)
    # Readers see no more than the sum of four, whose noise is twice as large.
    four = altogether([made.model_copy(update={"survivors": 4})], 1e-5)
    alone = PLDAccountant()
    alone.compose(GaussianDpEvent(2 * sigma), rounds)
    assert four.readers is not None
    # Rényi divergences say a little more than the closed form.
    assert four.readers <= alone.get_epsilon(1e-5) * 1.1
    assert four.epsilon == pytest.approx(epsilon, abs=1e-6)


def test_noise_of_servers_and_of_clients_adds_up() -> None:
    server = Release(unit="client", noise_multiplier=2.0, sampling=Everyone(), steps=3)
    own = Shared(mechanism="gaussian", norm=0.5, sigma=3.0, values=9, asked=1, survivors=1,
                 population=1)  # fmt: skip
    both = altogether([server, own], 1e-5)
    each = [altogether([one], 5e-6).epsilon for one in (server, own)]
    assert both.epsilon == pytest.approx(sum(each))
    # Basic composition says more than one Gaussian of both.
    one = (3 / 2.0**2 + (2 * 0.5 / 3.0) ** 2) ** -0.5
    assert both.epsilon >= get_epsilon_gaussian(one, 1e-5)
    assert both.adjacency == "zero-out"


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0.0, 1e-5), (-1.0, 1e-5), (math.inf, 1e-5), (1.0, 0.0), (1.0, 1.0)]
)
def test_promises_that_make_no_sense_are_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(ConfigError, match="mechanism 'local': epsilon"):
        sigma_for(epsilon=epsilon, delta=delta, clip=1.0, neighbours="zero-out", rounds=1)
