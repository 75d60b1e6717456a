"""However byzantine clients choose their updates, they move a rule no farther than it promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.aggregators import (
    bulyan,
    centred_clipping,
    geometric_median,
    krum,
    mean,
    median,
    multi_krum,
    norm_bound,
    trimmed_mean,
)
from atoll.aggregators.groups import across_groups, across_neighbours
from atoll.core import Aggregator
from tests.support.folds import Vectors, fold_vectors

WIDTH, HONEST, BYZANTINE = 8, 9, 2
N = HONEST + BYZANTINE
BIG = st.one_of(st.floats(-1e30, 1e30), st.floats(-3, 3), st.sampled_from([1e150, -1e200, 1e308]))

attackers = st.lists(
    st.lists(BIG, min_size=WIDTH, max_size=WIDTH), min_size=BYZANTINE, max_size=BYZANTINE
).map(np.array)
seeds = st.integers(0, 1000)


def honest(seed: int) -> Vectors:
    draw = np.random.default_rng(seed)
    return draw.normal(size=(HONEST, WIDTH)) + 3 * draw.normal(size=WIDTH)


def radius_of(rows: Vectors) -> float:
    """Of a ball about the mean of the honest that holds all of them."""
    return float(np.linalg.norm(rows - rows.mean(axis=0), axis=1).max())


def away(rule: Aggregator, rows: Vectors, bad: Vectors, seed: int) -> float:
    """How far the result is from the mean of the honest, in their radius."""
    everyone = np.random.default_rng(seed).permutation(np.concatenate([rows, bad]))
    found = fold_vectors(rule, everyone)
    return float(np.linalg.norm(found - rows.mean(axis=0))) / radius_of(rows)


# An update that is chosen has a score of at most (n − f − 2)·(2R)², and at least n − 2f − 2 honest
# ones among those that are in it.
KRUM = 1 + 2 * math.sqrt((N - BYZANTINE - 2) / (N - 2 * BYZANTINE - 2))
# Of half of the others, which its score adds up, at least half − f are honest; the half itself lies
# within 2R of it on average.
START = 1 + 2 * (1 + math.sqrt((N // 2) / (N // 2 - BYZANTINE)))
# Moving from the honest costs n − f of them a distance each, and wins it of f.
MIDDLE = 2 * (N - BYZANTINE) / (N - 2 * BYZANTINE)
PROMISES: dict[str, tuple[Aggregator, float]] = {
    "krum": (krum(byzantine=BYZANTINE), KRUM),
    "multi_krum": (multi_krum(byzantine=BYZANTINE), KRUM),
    "geometric_median": (geometric_median(), MIDDLE),
    "centred_clipping": (centred_clipping(radius=0.5, iterations=4), START + 4 * 0.5 / 1.0),
    "nnm": (across_neighbours(krum(byzantine=BYZANTINE), byzantine=BYZANTINE), 3 * KRUM),
}


@given(st.sampled_from(sorted(PROMISES)), attackers, seeds)
@settings(deadline=None, max_examples=150)
def test_the_result_stays_near_the_honest(name: str, bad: Vectors, seed: int) -> None:
    rule, promised = PROMISES[name]
    rows = honest(seed)
    assert radius_of(rows) > 1
    assert away(rule, rows, bad, seed) <= promised


@given(attackers, seeds)
@settings(deadline=None, max_examples=60)
def test_each_coordinate_stays_within_that_of_the_honest(bad: Vectors, seed: int) -> None:
    rows = honest(seed)
    low, high = rows.min(axis=0), rows.max(axis=0)
    spread = high - low
    everyone = np.random.default_rng(seed).permutation(np.concatenate([rows, bad]))
    inside: dict[str, tuple[Aggregator, Vectors]] = {
        "median": (median(), 0 * spread),
        "trimmed_mean": (trimmed_mean(fraction=BYZANTINE / N), 0 * spread),
        "grouped": (across_groups(median(), size=2), 0 * spread),
        # As far from the median as the farthest honest value that it could have kept instead.
        "bulyan": (bulyan(byzantine=BYZANTINE), spread),
    }
    for name, (rule, slack) in inside.items():
        found = fold_vectors(rule, everyone)
        assert (found >= low - slack - 1e-9).all(), name
        assert (found <= high + slack + 1e-9).all(), name


@given(attackers, seeds, st.floats(0.1, 10))
@settings(deadline=None, max_examples=40)
def test_a_bound_holds_whatever_is_sent(bad: Vectors, seed: int, norm: float) -> None:
    rows = honest(seed)
    kept = [row * min(1, norm / np.linalg.norm(row)) for row in rows]
    found = fold_vectors(norm_bound(norm=norm), np.concatenate([rows, bad]))
    moved = np.linalg.norm(found - np.sum(kept, axis=0) / N)
    assert moved <= norm * BYZANTINE / N * (1 + 1e-9)


@given(st.floats(-10, 10), seeds)
@settings(deadline=None, max_examples=40)
def test_centred_clipping_moves_by_its_radius_at_most(value: float, seed: int) -> None:
    """f of n add at most radius · f / n to each step, and all of them at most the radius."""
    rows = honest(seed)
    everyone = np.concatenate([rows, np.full((BYZANTINE, WIDTH), value)])
    steps = [fold_vectors(centred_clipping(radius=0.5, iterations=k), everyone) for k in (1, 2, 3)]
    for before, after in pairwise(steps):
        assert np.linalg.norm(after - before) <= 0.5 + 1e-9


def test_one_client_carries_a_mean_away() -> None:
    rows = honest(0)
    assert away(mean(), rows, np.full((1, WIDTH), 1e6), 0) > 1e4


def _one_too_many() -> dict[str, Callable[[], Aggregator]]:
    return {
        "median": median,
        "geometric_median": geometric_median,
        "multi_krum": lambda: multi_krum(byzantine=0),
        "trimmed_mean": lambda: trimmed_mean(fraction=0.1),
    }


def test_promises_end_where_they_say() -> None:
    """A test of a promise means nothing where no attack can break it."""
    rows = honest(0)
    for name, make in _one_too_many().items():
        several = HONEST + 1 if name in ("median", "geometric_median") else 4
        assert away(make(), rows, np.full((several, WIDTH), 1e6), 0) > 1e4, name
