"""Ranks against every pair, one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.audit.ranking import auc, bootstrapped, tpr_at

SCORES = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=12)


@given(SCORES, SCORES)
@settings(max_examples=60)
def test_auc_is_the_share_of_pairs_in_order(there: list[float], others: list[float]) -> None:
    pairs = [(a > b) + 0.5 * (a == b) for a in there for b in others]
    assert auc(there, others) == pytest.approx(sum(pairs) / len(pairs))


@given(SCORES, SCORES, st.sampled_from([0.0, 0.01, 0.1, 0.25, 0.5]))
@settings(max_examples=60)
def test_tpr_is_the_best_threshold_that_few_others_pass(
    there: list[float], others: list[float], fpr: float
) -> None:
    best = 0.0
    for threshold in [*others, *there, max(there) + 1]:
        passing = sum(score > threshold for score in others) / len(others)
        if passing <= fpr:
            best = max(best, sum(score > threshold for score in there) / len(there))
    assert tpr_at(there, others, fpr=fpr) == pytest.approx(best)


def test_the_interval_holds_the_truth_and_narrows() -> None:
    # P[N(1, 1) > N(0, 1)] = Φ(1/√2)
    truth, draw = 0.7602499389065233, np.random.default_rng(3)
    wide, narrow = (
        bootstrapped(auc, draw.normal(1, 1, n), draw.normal(0, 1, n), np.random.default_rng(0))
        for n in (40, 1000)
    )
    for told in (wide, narrow):
        assert told.interval is not None
        low, high = told.interval
        assert low < truth < high
        assert low < told.value < high
    assert np.ptp(narrow.interval) < np.ptp(wide.interval) / 3


def test_one_score_has_no_interval() -> None:
    one, many = np.asarray([1.0]), np.asarray([0.0, 2.0, 0.5])
    told = bootstrapped(auc, one, many, np.random.default_rng(0))
    assert (told.value, told.interval) == (pytest.approx(2 / 3), None)
