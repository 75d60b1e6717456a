"""The one-run bound against published figures, sums of binomials written out, and itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting import get_epsilon_gaussian
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.audit.canary_clients import Schedule, gaussian_release, watched
from atoll.audit.one_run import epsilon_lower_bound, lower_bound_from_scores, p_value


@pytest.mark.parametrize(
    ("canaries", "guesses", "right", "epsilon", "delta", "expected"),
    [
        (1000, 100, 95, 2, 1e-5, 0.0178246),
        (400, 50, 40, 1, 1e-5, 0.175223),
        (100, 100, 99, 3, 0, 0.0463965),
        (1000, 200, 180, 1.5, 1e-6, 0.000995465),
    ],
)
def test_p_values_of_reference(
    canaries: int, guesses: int, right: int, epsilon: float, delta: float, expected: float
) -> None:
    assert p_value(canaries, guesses, right, epsilon, delta) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("canaries", "guesses", "right", "delta", "expected"),
    [
        (1000, 100, 95, 1e-5, 2.1652),
        (1000, 100, 60, 1e-5, 0.0495),
        (100, 100, 100, 0, 3.4930),
        (1000, 200, 180, 1e-6, 1.7986),
    ],
)
def test_bounds_of_reference(
    canaries: int, guesses: int, right: int, delta: float, expected: float
) -> None:
    found = epsilon_lower_bound(canaries, guesses, right, delta)
    assert found == pytest.approx(expected, abs=1e-4)


@given(
    st.integers(1, 12), st.data(), st.floats(0, 4), st.sampled_from([0.0, 1e-6, 1e-3, 0.1])
)  # fmt: skip
@settings(max_examples=60)
def test_p_values_are_sums_of_binomials(
    guesses: int, data: st.DataObject, epsilon: float, delta: float
) -> None:
    right, canaries = data.draw(st.integers(0, guesses)), guesses + 5
    p = math.exp(epsilon) / (1 + math.exp(epsilon))
    mass = [math.comb(guesses, k) * p**k * (1 - p) ** (guesses - k) for k in range(guesses + 1)]
    beta = sum(mass[right:])
    alpha = max(
        (sum(mass[max(right - i, 0) : right]) / i for i in range(1, right + 1)), default=0.0
    )
    expected = min(beta + 2 * canaries * delta * alpha, 1.0)
    assert p_value(canaries, guesses, right, epsilon, delta) == pytest.approx(expected, abs=1e-9)


@given(st.integers(2, 60), st.data(), st.sampled_from([0.0, 1e-5]))
@settings(max_examples=30)
def test_more_right_guesses_refute_more(guesses: int, data: st.DataObject, delta: float) -> None:
    right = data.draw(st.integers(1, guesses))
    more, less = (epsilon_lower_bound(100, guesses, v, delta) for v in (right, right - 1))
    assert more >= less
    # What it refutes it refutes with the confidence that was asked for, and not a step further.
    if more:
        assert p_value(100, guesses, right, more - 1e-6, delta) < 0.05
        assert p_value(100, guesses, right, more + 1e-6, delta) >= 0.05


def test_coins_that_show_refute_much_and_coins_that_do_not_nothing() -> None:
    draw = np.random.default_rng(0)
    included = draw.random(1000) < 0.5
    # Four numbers of guesses share the doubt of 0.05; of 500 all are right, where p^500 = 0.0125.
    sure = -math.log(0.0125 ** (-1 / 500) - 1)
    assert lower_bound_from_scores(included.astype(float), included, 0) == pytest.approx(sure)
    assert lower_bound_from_scores(draw.random(1000), included, 1e-5) < 0.3


@pytest.mark.parametrize("noise", [0.3, 0.6, 1.0, 2.0, 4.0])
def test_the_bound_stays_below_the_truth_and_above_nothing(noise: float) -> None:
    truth = get_epsilon_gaussian(noise, 1e-5)
    key = b"k" * 32
    scores = watched(gaussian_release(noise, key=key), Schedule(), canaries=1000, key=key)
    found = lower_bound_from_scores(scores.values, scores.included, 1e-5)
    assert found < truth
    if noise <= 2:
        assert found > truth / 6


@pytest.mark.long
@pytest.mark.parametrize(
    ("noise", "rounds", "rate", "claimed"),
    # ε of 100 rounds at a rate of 0.1 by privacy loss distributions: 5.07509.
    [(0.6, 1, 1.0, 8.0037), (1.0, 1, 1.0, 4.3772), (4.0, 1, 1.0, 0.9263), (1.2, 100, 0.1, 5.07509)],
)
def test_in_at_least_95_of_100_runs_the_bound_is_at_most_what_is_claimed(
    noise: float, rounds: int, rate: float, claimed: float
) -> None:
    kept = 0
    for seed in range(100):
        key = seed.to_bytes(32, "big")
        scores = watched(
            gaussian_release(noise, key=key), Schedule(rounds, rate), canaries=1000, key=key
        )
        kept += lower_bound_from_scores(scores.values, scores.included, 1e-5) <= claimed
    assert kept >= 95
