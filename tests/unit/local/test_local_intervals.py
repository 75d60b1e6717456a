"""Bootstrap intervals against those of the normal distribution, and on rows that are paired."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from atoll.local.infer import Rows
from atoll.local.intervals import draws, interval, resamples
from atoll.models.metrics import accuracy


def _answers(right: np.ndarray) -> Rows:
    found = torch.from_numpy((~right).astype(np.int64))
    return Rows(torch.stack([found, torch.zeros_like(found)], dim=1), torch.ones(len(right)))


def test_the_interval_of_a_share_is_the_normal_one() -> None:
    draw = np.random.default_rng(0)
    right = draw.random(600) < 0.8
    found = draws(accuracy(2), [[_answers(right)]], number=1000, generator=draw)
    low, high = interval(found[:, 0], rows=600)
    share = right.mean()
    width = stats.norm.ppf(0.975) * np.sqrt(share * (1 - share) / len(right))
    assert low == pytest.approx(share - width, abs=0.006)
    assert high == pytest.approx(share + width, abs=0.006)


def test_pairing_takes_away_what_both_models_share() -> None:
    """Two models that differ in ten of 500 rows: far less sure alone than in their difference."""
    draw = np.random.default_rng(1)
    first = draw.random(500) < 0.5
    second = first.copy()
    second[np.flatnonzero(first)[:10]] = False
    arms = [[_answers(first)], [_answers(second)]]
    found = draws(accuracy(2), arms, number=1000, generator=draw)
    low, high = interval(found[:, 0] - found[:, 1], rows=500)
    assert 0 < low < 0.02 < high < 0.04
    alone = interval(found[:, 0], rows=500)
    assert alone[1] - alone[0] > 3 * (high - low)


def test_an_arm_is_the_mean_of_its_models() -> None:
    draw = np.random.default_rng(2)
    models = [_answers(draw.random(40) < p) for p in (0.2, 0.9)]
    arms = [models, [models[0]], [models[1]]]
    found = draws(accuracy(2), arms, number=50, generator=draw)
    assert found[:, 0] == pytest.approx((found[:, 1] + found[:, 2]) / 2)


def test_nothing_to_measure_has_no_interval() -> None:
    assert interval(np.array([np.nan, np.nan]), rows=2) is None
    assert interval(np.array([np.nan, 0.5]), rows=2) == (0.5, 0.5)
    assert interval(np.array([0.5, 0.5]), rows=1) is None


def test_many_models_get_fewer_draws() -> None:
    assert [resamples(n) for n in (0, 3, 200, 10_000)] == [1000, 1000, 500, 100]
