"""Robust rules against their formulas in plain numpy, and the laws that they promise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

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

WIDTH = 9
SHAPES = [(7, 2), (7, 1), (9, 3), (11, 2), (16, 3)]
"""(n, f) for which every rule is defined."""


def squared(x: Vectors, y: Vectors) -> float:
    return float(((x - y) ** 2).sum())


def krum_order(rows: Vectors, byzantine: int, nearest: int | None = None) -> list[int]:
    """Places by Krum's score: the sum of the n − f − 2 smallest distances to the others."""
    n = len(rows)
    count = max(1, n - byzantine - 2) if nearest is None else nearest
    score = [
        sum(sorted(squared(rows[i], rows[j]) for j in range(n) if j != i)[:count]) for i in range(n)
    ]
    total = [sum(squared(row, other) for other in rows) for row in rows]
    # Two that are each other's only neighbour differ in nothing but their distance to the rest.
    return sorted(range(n), key=lambda i: (round(score[i], 9), total[i]))


def bulyan_formula(rows: Vectors, byzantine: int) -> Vectors:
    left, chosen = list(range(len(rows))), []
    for _ in range(len(rows) - 2 * byzantine):
        best = krum_order(rows[left], byzantine)[0]
        chosen.append(left.pop(best))
    found = []
    for column in rows[chosen].T:
        near = sorted(column, key=lambda value: abs(value - np.median(column)))
        found.append(np.mean(near[: len(chosen) - 2 * byzantine]))
    return np.array(found)


def majority(rows: Vectors) -> Vectors:
    """The mean of the update with the closest half of the others, and of that half."""
    half = len(rows) // 2
    middle = krum_order(rows, 0, nearest=half)[0]
    near = sorted(range(len(rows)), key=lambda j: squared(rows[middle], rows[j]))
    return rows[near[: half + 1]].mean(axis=0)


def weiszfeld(rows: Vectors, smoothing: float, iterations: int) -> Vectors:
    point = rows.mean(axis=0)
    for _ in range(iterations):
        near = 1 / np.maximum(np.linalg.norm(rows - point, axis=1), smoothing)
        point = (near[:, None] * rows).sum(axis=0) / near.sum()
    return point


def clipping_formula(rows: Vectors, radius: float | None, iterations: int) -> Vectors:
    point = majority(rows)
    if radius is None:
        radius = sorted(np.linalg.norm(rows - point, axis=1))[(len(rows) - 1) // 2]
    for _ in range(iterations):
        moves = rows - point
        lengths = np.linalg.norm(moves, axis=1)
        point = point + (moves * np.minimum(1, radius / lengths)[:, None]).mean(axis=0)
    return point


def mixing_formula(rows: Vectors, byzantine: int) -> Vectors:
    mixed = []
    for own in rows:
        near = sorted(range(len(rows)), key=lambda j: squared(own, rows[j]))
        mixed.append(rows[near[: len(rows) - byzantine]].mean(axis=0))
    return np.array(mixed)


Formula = Callable[[Vectors, int], Vectors]
FORMULAS: dict[str, tuple[Callable[[int], Aggregator], Formula]] = {
    "krum": (lambda f: krum(byzantine=f), lambda x, f: x[krum_order(x, f)[0]]),
    "multi_krum": (
        lambda f: multi_krum(byzantine=f),
        lambda x, f: x[krum_order(x, f)[: len(x) - f]].mean(axis=0),
    ),
    "multi_krum of 3": (
        lambda f: multi_krum(byzantine=f, selected=3),
        lambda x, f: x[krum_order(x, f)[:3]].mean(axis=0),
    ),
    "geometric_median": (
        lambda f: geometric_median(smoothing=1e-9, iterations=2000),
        lambda x, f: weiszfeld(x, 1e-9, 4000),
    ),
    "centred_clipping": (
        lambda f: centred_clipping(radius=1.5, iterations=4),
        lambda x, f: clipping_formula(x, 1.5, 4),
    ),
    "centred_clipping by itself": (
        lambda f: centred_clipping(),
        lambda x, f: clipping_formula(x, None, 3),
    ),
    "norm_bound": (
        lambda f: norm_bound(norm=2.0),
        lambda x, f: np.mean([row * min(1, 2 / np.sqrt(row @ row)) for row in x], axis=0),
    ),
    "nnm": (
        lambda f: across_neighbours(median(), byzantine=f),
        lambda x, f: np.median(mixing_formula(x, f), axis=0),
    ),
    "nnm before krum": (
        lambda f: across_neighbours(krum(byzantine=f), byzantine=f),
        lambda x, f: mixing_formula(x, f)[krum_order(mixing_formula(x, f), f)[0]],
    ),
}


def drawn(n: int, byzantine: int, seed: int, size: float = 10.0) -> Vectors:
    """Honest updates that differ, and some that are far away, in a mixed order."""
    draw = np.random.default_rng([n, byzantine, seed])
    rows = draw.normal(size=(n, WIDTH)) + draw.normal(size=WIDTH)
    rows[:byzantine] *= size
    return draw.permutation(rows)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("n", "byzantine"), SHAPES, ids=str)
@pytest.mark.parametrize("name", FORMULAS)
def test_a_rule_is_its_formula(name: str, n: int, byzantine: int, seed: int) -> None:
    make, formula = FORMULAS[name]
    rows = drawn(n, byzantine, seed)
    expected = formula(rows, byzantine)
    np.testing.assert_allclose(fold_vectors(make(byzantine), rows), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n", "byzantine"), [(7, 1), (8, 1), (11, 2), (14, 2), (15, 3)], ids=str)
def test_bulyan_is_its_formula(n: int, byzantine: int, seed: int) -> None:
    rows = drawn(n, byzantine, seed)
    expected = bulyan_formula(rows, byzantine)
    np.testing.assert_allclose(fold_vectors(bulyan(byzantine=byzantine), rows), expected, atol=1e-9)


def test_krum_looks_at_one_neighbour_fewer_than_byzfl() -> None:
    """The paper sums n − f − 2 distances; byzfl 0.0.11 sums n − f − 1, which chooses another."""
    for seed in range(200):
        rows = drawn(9, 2, seed)
        paper, other = krum_order(rows, 2)[0], krum_order(rows, 2, nearest=9 - 2 - 1)[0]
        if paper != other:
            break
    assert paper != other
    np.testing.assert_allclose(fold_vectors(krum(byzantine=2), rows), rows[paper])


@pytest.mark.parametrize("seed", range(3))
def test_no_point_is_closer_to_all_than_the_geometric_median(seed: int) -> None:
    """Against a general minimiser, which knows nothing of Weiszfeld."""
    rows = drawn(9, 2, seed)

    def total(point: Vectors) -> float:
        return float(np.linalg.norm(rows - point, axis=1).sum())

    found = fold_vectors(geometric_median(), rows)
    best = minimize(total, np.median(rows, axis=0), method="BFGS", options={"gtol": 1e-9})
    assert total(found) <= best.fun + 1e-7
    np.testing.assert_allclose(found, best.x, atol=1e-4)


@pytest.mark.parametrize("rule", [mean(), median()], ids=lambda rule: rule.name)
def test_groups_are_a_partition_of_the_cohort(rule: Aggregator) -> None:
    """Of six updates in groups of three there are ten divisions, and one of them it must be."""
    rows = drawn(6, 1, 0)
    found = fold_vectors(across_groups(rule, size=3), rows)
    if rule.name == "mean":
        np.testing.assert_allclose(found, rows.mean(axis=0))
        return
    means = [
        (rows[[0, a, b]].mean(axis=0), np.delete(rows, [0, a, b], axis=0).mean(axis=0))
        for a in range(1, 6)
        for b in range(a + 1, 6)
    ]
    assert len(means) == 10
    assert sum(np.allclose(found, np.median(pair, axis=0)) for pair in means) >= 1


LAWS: dict[str, Callable[[int], Aggregator]] = {
    **{name: make for name, (make, _) in FORMULAS.items()},
    "bulyan": lambda f: bulyan(byzantine=(f + 1) // 2),
    "median": lambda f: median(),
    "trimmed_mean": lambda f: trimmed_mean(fraction=0.3),
    "grouped": lambda f: across_groups(median(), size=2),
}


@given(st.sampled_from(sorted(LAWS)), st.permutations(range(11)), st.integers(0, 50))
@settings(deadline=None, max_examples=60)
def test_the_order_of_clients_does_not_matter(name: str, order: list[int], seed: int) -> None:
    rows = drawn(11, 2, seed)
    once, again = (fold_vectors(LAWS[name](2), x) for x in (rows, rows[order]))
    np.testing.assert_allclose(again, once, rtol=1e-6, atol=1e-8)


@given(st.sampled_from(sorted(set(LAWS) - {"norm_bound", "grouped"})), st.floats(-1e3, 1e3),
       st.integers(0, 50))  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_where_all_updates_move_the_result_moves(name: str, shift: float, seed: int) -> None:
    rows = drawn(11, 2, seed)
    there = np.linspace(-shift, shift, WIDTH)
    once, moved = (fold_vectors(LAWS[name](2), x) for x in (rows, rows + there))
    np.testing.assert_allclose(moved, once + there, rtol=1e-6, atol=1e-5)


@given(st.integers(1, 9), st.integers(0, 50))
@settings(deadline=None, max_examples=30)
def test_with_nobody_to_tolerate_they_are_the_mean(n: int, seed: int) -> None:
    rows = drawn(n, 0, seed)
    for rule in (
        multi_krum(byzantine=0), multi_krum(byzantine=0, selected=n), bulyan(byzantine=0),
        centred_clipping(radius=1e6, iterations=1), norm_bound(norm=1e6),
        trimmed_mean(fraction=0.0), across_neighbours(mean(), byzantine=0),
    ):  # fmt: skip
        np.testing.assert_allclose(fold_vectors(rule, rows), rows.mean(axis=0), atol=1e-12)


@given(st.sampled_from(sorted(LAWS)), st.integers(0, 50))
@settings(deadline=None, max_examples=40)
def test_updates_that_agree_are_the_result(name: str, seed: int) -> None:
    row = drawn(1, 0, seed)
    size = np.linalg.norm(row)
    row = row / max(1, size)  # within every norm bound
    np.testing.assert_allclose(
        fold_vectors(LAWS[name](2), np.repeat(row, 11, 0)), row[0], rtol=1e-9
    )
