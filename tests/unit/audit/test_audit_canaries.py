"""Canary clients: what they say of noise whose size is known, and of the code that makes it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dp_accounting import get_epsilon_gaussian
from scipy.stats import norm

from atoll.accounting import InTurns
from atoll.audit.canary_algorithm import Turns, mechanism_release, turns_release
from atoll.audit.canary_clients import (
    Schedule,
    Scores,
    estimated,
    gaussian_release,
    watched,
)
from atoll.audit.noise_seen import (
    measured,
    noise_of_rounds,
    noise_of_rows,
    noise_of_turns,
    shown,
)
from atoll.audit.trial import Trial, trial_of
from atoll.config.privacy import AdaptiveClip, Privacy
from atoll.protection import Protection
from atoll.protection.central import Central
from atoll.protection.cohorts import Drawing
from tests.unit.audit.worlds import CLIENTS, begun_trial, begun_values, world

KEY = b"canary key of thirty-two bytes.."
DELTA = 1e-5


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return begun_trial(tmp_path_factory.mktemp("world"), rows=2)


@pytest.mark.parametrize("separation", [0.5, 1.0, 2.0])
def test_epsilon_is_that_of_the_gaussian_mechanism(separation: float) -> None:
    # As many quantiles of a normal distribution, so that means and deviations are exact.
    grid = norm.ppf((np.arange(4000) + 0.5) / 4000)
    scores = np.concatenate([grid + separation, grid])
    found = estimated(Scores(scores, np.arange(8000) < 4000), DELTA)
    assert found.separation == pytest.approx(separation, rel=1e-3)
    # Balle and Wang 2018: Φ(μ/2 − ε/μ) − e^ε·Φ(−μ/2 − ε/μ) = δ.
    mu, eps = found.separation, found.epsilon
    delta = norm.cdf(mu / 2 - eps / mu) - math.exp(eps) * norm.cdf(-mu / 2 - eps / mu)
    assert delta == pytest.approx(DELTA, rel=1e-6)
    low, high = found.interval
    assert low < eps < high
    # The error of a difference of means, and of a deviation in its denominator.
    assert found.error == pytest.approx(math.sqrt(2 / 4000 + mu**2 / 8000), rel=0.01)


@pytest.mark.parametrize(
    ("rounds", "rate", "noise"), [(1, 1.0, 1.0), (9, 1.0, 2.0), (50, 0.2, 1.5)]
)
def test_a_schedule_says_how_far_canaries_stand_apart(
    rounds: int, rate: float, noise: float
) -> None:
    schedule = Schedule(rounds, rate)
    # A canary adds 1 in rate·T rounds on average; the noise of T rounds has a deviation of √T·σ.
    expected = rate * rounds / (math.sqrt(rounds) * noise)
    assert schedule.separation(noise) == pytest.approx(expected)
    scores = watched(gaussian_release(noise, key=KEY), schedule, canaries=4000, key=KEY)
    found = estimated(scores, DELTA)
    assert abs(found.separation - expected) < 4 * found.error
    assert not found.beyond(expected)
    assert schedule.separation(0) == math.inf


@pytest.mark.parametrize(
    "clip",
    [0.01, pytest.param(3.0, marks=pytest.mark.long),
     pytest.param(AdaptiveClip(adaptive=True, initial=0.05), marks=pytest.mark.long)],
    ids=["small", "large", "moves"],
)  # fmt: skip
def test_the_code_adds_as_much_noise_as_it_says(trial: Trial, clip: float | AdaptiveClip) -> None:
    settings = Privacy(noise_multiplier=1.0, clip=clip)
    release = mechanism_release(trial, settings, canaries=1000, key=KEY)
    found = estimated(watched(release, Schedule(), canaries=1000, key=KEY), DELTA)
    assert abs(found.separation - 1.0) < 4 * found.error
    assert not found.beyond(1.0)


def test_half_of_the_noise_is_seen(trial: Trial) -> None:
    halved = Privacy(noise_multiplier=0.5, clip=0.1)
    release = mechanism_release(trial, halved, canaries=1000, key=KEY)
    found = estimated(watched(release, Schedule(), canaries=1000, key=KEY), DELTA)
    assert found.beyond(Schedule().separation(1.0))
    assert found.epsilon > 8
    assert found.interval[0] > 4.3772  # what a multiplier of 1 would spend


@pytest.mark.parametrize("canaries", [130, 1000])
@pytest.mark.parametrize("promised", [0.7, 5.0, 20.0])
def test_any_noise_is_told_from_half_of_it(promised: float, canaries: int) -> None:
    draw = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        there, noise = draw.random(canaries) < 0.5, draw.normal(size=canaries)
        honest = shown(Scores(there + promised * noise, there), promised)
        halved = shown(Scores(there + promised / 2 * noise, there), promised)
        assert not honest.less
        assert halved.less
        assert halved.interval is not None
        low, high = halved.interval
        wrong += not low < promised / 2 < high
    # One in twenty intervals is beside what it is of.
    assert 1 <= wrong <= 22


def test_a_clip_that_is_wider_than_it_says_is_told_from_the_right_noise() -> None:
    draw = np.random.default_rng(1)
    there, noise = draw.random(1000) < 0.5, draw.normal(size=1000)
    assert not shown(Scores(there + noise, there), 1.0).less
    assert shown(Scores(2 * there + noise, there), 1.0).less


@pytest.mark.parametrize(("promised", "clip"), [(5.0, 0.1), (20.0, 1e-7)])
def test_half_of_much_noise_is_seen_in_the_code(trial: Trial, promised: float, clip: float) -> None:
    for added in (promised, promised / 2):
        settings = Privacy(noise_multiplier=added, clip=clip)
        found = noise_of_rounds(trial, settings, promised, canaries=1000, key=KEY)
        assert found.less is (added < promised)
        # Of 1,000 places: its standard error is 2 %.
        assert found.multiplier == pytest.approx(added, rel=0.09)


@pytest.mark.long
def test_noise_that_is_missing_in_one_tensor_is_seen(trial: Trial) -> None:
    settings = Privacy(noise_multiplier=1.0, clip=0.1)
    noisy = mechanism_release(trial, settings, canaries=1000, key=KEY)
    plain = mechanism_release(
        trial, settings.model_copy(update={"noise_multiplier": 1e-6}), canaries=1000, key=KEY
    )

    def half(number: int, there: np.ndarray) -> np.ndarray:
        return np.where(np.arange(1000) % 2 == 0, noisy(number, there), plain(number, there))

    scores = watched(half, Schedule(), canaries=1000, key=KEY)
    assert shown(scores, 1.0).less


def _in_turns(noise: float, *, rounds: int = 12) -> Protection:
    """Five of twenty clients a round: each comes back every fourth round."""
    settings = Privacy(mechanism="blt", sampling="turns", noise_multiplier=noise, clip=0.1)
    return Protection(settings, Drawing(20, 5.0, InTurns()), rounds)


@pytest.mark.parametrize("looked_at", [12, 6])
def test_a_canary_in_turns_is_what_the_matrix_says_of_it(looked_at: int) -> None:
    protection = _in_turns(1.0)
    turns = Turns(protection, looked_at)
    asked = [turns.cohort(number, 0, ("one",)) for number in range(1, looked_at + 1)]
    there = np.array([float(bool(one)) for one in asked])
    assert there.tolist() == [float(number % 4 == 0) for number in range(looked_at)]
    assert protection.correlated is not None
    blt = protection.correlated.strategy.blt
    column = [1.0] + [
        sum(s * d**power for s, d in zip(blt.scale, blt.decay, strict=True)) for power in range(11)
    ]
    matrix = np.array([[column[i - j] if i >= j else 0.0 for j in range(12)] for i in range(12)])
    # Brute force over who takes part every fourth round, and as often as it can.
    worst = max(
        np.linalg.norm(matrix @ np.isin(np.arange(12), np.arange(start, 12, 4)))
        for start in range(4)
    )
    alone = matrix[:looked_at, :looked_at] @ there
    assert turns.signal == pytest.approx(np.linalg.norm(alone) / worst, rel=1e-9)
    # x + C⁻¹z: what is made of it has the deviation of z, and the signal of a canary.
    noise = np.random.default_rng(0).normal(size=(looked_at, 20_000)) * worst
    released = there[:, None] + np.linalg.solve(matrix[:looked_at, :looked_at], noise)
    found = turns.whitened(released)
    assert found.mean() == pytest.approx(turns.signal, abs=0.03)
    assert found.std() == pytest.approx(1.0, abs=0.02)


def test_noise_that_rounds_take_back_is_as_much_as_it_says(trial: Trial) -> None:
    protection = _in_turns(1.0)
    turns = Turns(protection, 12)
    assert turns.signal == pytest.approx(1.0)
    release = turns_release(trial, turns, canaries=1000, key=KEY)
    found = estimated(watched(release, Schedule(), canaries=1000, key=KEY), DELTA)
    assert abs(found.separation - 1.0) < 4 * found.error
    seen = noise_of_turns(trial, protection, 1.0, canaries=1000, key=KEY)
    assert not seen.less
    assert seen.multiplier == pytest.approx(1.0, abs=0.09)
    assert noise_of_turns(trial, protection, 2.0, canaries=1000, key=KEY).less


@pytest.mark.parametrize("looked_at", [12, 3])
def test_half_of_the_noise_that_rounds_take_back_is_seen(
    trial: Trial, looked_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = sum(value.numel() for value in trial.payloads()[CLIENTS[0]]["update"].tree.values())
    monkeypatch.setattr("atoll.audit.noise_seen.MOST_VALUES", looked_at * values)

    class Halved(Protection):
        """Promises twice the noise that it adds."""

        @property
        def _central(self) -> Central:
            whole = super()._central
            return replace(whole, multiplier=lambda: whole.multiplier() / 2)

    whole = _in_turns(1.0)
    halved = Halved(whole.settings, whole.drawing, whole.rounds)
    assert noise_of_turns(trial, halved, 1.0, canaries=1000, key=KEY).less
    assert not noise_of_turns(trial, whole, 1.0, canaries=1000, key=KEY).less


def test_without_noise_all_is_certain(trial: Trial) -> None:
    settings = Privacy(epsilon=None, noise_multiplier=0.0, clip=0.1)
    release = mechanism_release(trial, settings, canaries=200, key=KEY)
    found = estimated(watched(release, Schedule(), canaries=200, key=KEY), DELTA)
    assert (found.epsilon, found.separation) == (math.inf, math.inf)
    assert found.beyond(Schedule().separation(1.0))


def test_who_is_in_follows_from_the_key_alone() -> None:
    one, again, other = (
        watched(gaussian_release(1.0, key=key), Schedule(2, 0.5), canaries=500, key=key)
        for key in (KEY, KEY, KEY[::-1])
    )
    assert np.array_equal(one.values, again.values)
    assert np.array_equal(one.included, again.included)
    assert not np.array_equal(one.included, other.included)
    assert 200 < one.included.sum() < 300


def test_canaries_change_nothing_of_the_trial(trial: Trial) -> None:
    before = {part: dict(tree) for part, tree in trial.state.items()}
    release = mechanism_release(trial, Privacy(noise_multiplier=1.0), canaries=100, key=KEY)
    release(0, np.ones(100, dtype=bool))
    assert trial == replace(trial)
    for part, tree in before.items():
        assert all(trial.state[part][name] is value for name, value in tree.items())


def _of_rows(folder: Path, noise: float) -> Trial:
    setup = world(folder, privacy={"unit": "example", "noise_multiplier": noise, "clip": 0.2})
    rows = {"ada": setup.bench.examples("ada", "train")[:2]}
    found = trial_of(setup, setup.loaded, begun_values(setup), rows, hidden=True)
    assert found is not None
    return found


def test_the_noise_that_hides_rows_is_as_much_as_it_says_or_is_missed(tmp_path: Path) -> None:
    trial = _of_rows(tmp_path, 1.0)
    found = noise_of_rows(trial, 1.0)
    assert found.multiplier is not None
    assert found.interval is not None
    # Its standard error over 8,192 values is 0.8 %.
    assert found.multiplier == pytest.approx(1.0, abs=0.04)
    assert found.interval == pytest.approx(
        [found.multiplier * (1 + side * 1.96 / math.sqrt(2 * 8192)) for side in (-1, 1)]
    )
    assert not found.less
    # Half of what a promise says, or of what the code adds.
    assert noise_of_rows(trial, 2.0).less
    private = trial.bench.private
    assert private is not None
    halved = replace(trial.bench, private=replace(private, noise_multiplier=0.5))
    less = noise_of_rows(replace(trial, bench=halved), 1.0)
    assert less.less
    assert less.multiplier == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_tensor_with_too_little_noise_shows_among_all_values(share: float) -> None:
    draw = torch.Generator().manual_seed(3)
    noise = {name: torch.randn(size, generator=draw, dtype=torch.float64)
             for name, size in (("many", 20_000), ("few", 400))}  # fmt: skip
    assert not measured(noise, 1.0).less
    found = measured({**noise, "few": share * noise["few"]}, 1.0)
    # Of all values together it is a hundredth that is missing, less than chance may leave out.
    assert found.multiplier == pytest.approx(1.0, rel=0.02)
    assert found.less


def test_intervals_are_of_nineteen_in_twenty_and_certain_is_five_standard_errors() -> None:
    found = estimated(watched(gaussian_release(1.0, key=KEY), Schedule(), canaries=2000, key=KEY),
                      DELTA)  # fmt: skip
    for sides, epsilon in (
        (-norm.ppf(0.975), found.interval[0]), (norm.ppf(0.975), found.interval[1]),
        (-5.0, found.least), (0.0, found.epsilon),
    ):  # fmt: skip
        separation = found.separation + sides * found.error
        assert epsilon == pytest.approx(get_epsilon_gaussian(1 / separation, DELTA), rel=1e-4)
