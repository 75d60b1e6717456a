"""Confidence intervals by the paired bootstrap: models are compared on the same drawn rows.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3 (percentile interval);
paired as in Koehn 2004.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from atoll.local.infer import Rows
from atoll.models.objective import Metric

__all__ = ["LEVEL", "draws", "gain_interval", "interval", "resamples"]

LEVEL = 0.95
MOST, FEWEST = 1000, 100
WORK = 100_000
"""Metrics to compute in all, about a minute of them: many models get fewer draws each."""


def resamples(models: int) -> int:
    """How many draws are made where so many models are measured on each."""
    return max(FEWEST, min(MOST, WORK // max(models, 1)))


def draws(
    metric: Metric, arms: Sequence[Sequence[Rows]], *, number: int, generator: np.random.Generator
) -> np.ndarray:
    """[number, arms]: each arm's metric, the mean over its models, on rows drawn with replacement.

    All models have the same rows in the same order.
    """
    size = len(arms[0][0].counts)
    assert all(len(rows.counts) == size for arm in arms for rows in arm), "arms share their rows"
    found = np.empty((number, len(arms)))
    for draw in range(number):
        rows = generator.integers(size, size=size)
        for place, arm in enumerate(arms):
            values = [_value(metric, model, rows) for model in arm]
            found[draw, place] = sum(values) / len(values)
    return found


def _value(metric: Metric, model: Rows, rows: np.ndarray) -> float:
    score = Rows(model.scores[rows], model.counts[rows]).score(metric)
    return metric.finals(score.sums, score.count)[metric.name] if score.count else float("nan")


def interval(values: np.ndarray, *, rows: int) -> tuple[float, float] | None:
    """The middle `LEVEL` of drawn values; None where none of them is a number.

    rows: from which they were drawn; one that is drawn again and again tells nothing of others.
    """
    known = values[np.isfinite(values)]
    if rows < 2 or not len(known):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def gain_interval(
    metric: Metric, ours: Rows, other: Rows, *, models: int, generator: np.random.Generator
) -> tuple[float, float] | None:
    """How much better `ours` is than `other` on rows drawn with replacement.

    models: how many are compared in all; see `resamples`.
    """
    found = draws(metric, [[ours], [other]], number=resamples(models), generator=generator)
    sign = 1 if metric.higher_is_better else -1
    return interval(sign * (found[:, 0] - found[:, 1]), rows=len(ours.counts))
