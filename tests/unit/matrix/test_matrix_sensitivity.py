"""Sensitivity and error of BLT strategies, against matrices that are written out."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from atoll.errors import PrivacyError
from atoll.matrix import Blt, Participation, error, sensitivity
from atoll.matrix.tables import Table, tables

# rounds, separation, participations -> buffers, sensitivity, error, as another code found them.
KNOWN = [
    ((100, 10, 10), 2, 6.1641, 2.037),
    ((500, 50, 10), 3, 6.6669, 2.128),
    ((1000, 1000, 1), 3, 1.8046, 1.812),
    ((2000, 100, 20), 2, 10.9296, 2.472),
]


def _matrix(blt: Blt, rounds: int) -> NDArray[np.float64]:
    full = np.eye(rounds)
    for i, j in itertools.product(range(rounds), repeat=2):
        if i > j:
            terms = zip(blt.decay, blt.scale, strict=True)
            full[i, j] = sum(scale * decay ** (i - j - 1) for decay, scale in terms)
    return full


def _patterns(rounds: int, separation: int, times: int) -> list[tuple[int, ...]]:
    return [
        pattern
        for count in range(1, times + 1)
        for pattern in itertools.combinations(range(rounds), count)
        if all(b - a >= separation for a, b in itertools.pairwise(pattern))
    ]


@st.composite
def _strategies(draw: st.DrawFn) -> Blt:
    """Coefficients that start at 1, never increase and are never negative."""
    decay = draw(st.lists(st.floats(0.01, 1.0), max_size=4))
    shares = draw(st.lists(st.floats(0.01, 1.0), min_size=len(decay), max_size=len(decay)))
    total = max(1.0, sum(shares) * (1 + 1e-12))
    return Blt(tuple(decay), tuple(share / total for share in shares))


def _table(shape: tuple[int, int, int]) -> Table:
    return next(table for table in tables() if table.made_for == Participation(*shape))


@pytest.mark.parametrize(("shape", "buffers", "distance", "spread"), KNOWN)
def test_tables_have_the_numbers_that_another_code_found(
    shape: tuple[int, int, int], buffers: int, distance: float, spread: float
) -> None:
    table = _table(shape)
    assert len(table.blt.decay) == buffers
    assert sensitivity(table.blt, table.made_for) == pytest.approx(distance, abs=1e-4)
    assert error(table.blt, shape[0]) == pytest.approx(spread, abs=1e-3)


@given(_strategies(), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
@settings(deadline=None, max_examples=150)
def test_no_pattern_of_rounds_moves_more(
    blt: Blt, rounds: int, separation: int, times: int
) -> None:
    full = _matrix(blt, rounds)
    worst = max(
        float(np.linalg.norm(full[:, list(pattern)].sum(axis=1)))
        for pattern in _patterns(rounds, separation, times)
    )
    got = sensitivity(blt, Participation(rounds, separation, times))
    assert got == pytest.approx(worst, rel=1e-12)


@given(_strategies(), st.integers(0, 2**32))
@settings(deadline=None, max_examples=50)
def test_nor_do_updates_of_several_values_in_any_directions(blt: Blt, seed: int) -> None:
    random = np.random.default_rng(seed)
    bound = sensitivity(blt, Participation(8, 2, 3))
    for pattern in _patterns(8, 2, 3):
        updates = np.zeros((8, 3))
        updates[list(pattern)] = random.normal(size=(len(pattern), 3))
        norms = np.linalg.norm(updates, axis=1, keepdims=True)
        moved = _matrix(blt, 8) @ (updates / np.where(norms > 0, norms, 1))
        assert float(np.linalg.norm(moved)) <= bound * (1 + 1e-12)


@pytest.mark.parametrize("shape", [(10, 1, 3), (12, 3, 4), (11, 4, 2)])
def test_every_table_is_checked_by_brute_force_over_its_first_rounds(
    shape: tuple[int, int, int],
) -> None:
    patterns = _patterns(*shape)
    for table in tables():
        full = _matrix(table.blt, shape[0])
        worst = max(
            float(np.linalg.norm(full[:, list(pattern)].sum(axis=1))) for pattern in patterns
        )
        got = sensitivity(table.blt, Participation(*shape))
        assert got == pytest.approx(worst, rel=1e-12)


def test_the_error_is_that_of_the_worst_sum_of_first_rounds() -> None:
    for table in tables():
        rounds = min(table.made_for.rounds, 100)
        factor = np.tril(np.ones((rounds, rounds))) @ np.linalg.inv(_matrix(table.blt, rounds))
        worst = np.linalg.norm(factor, axis=1).max()
        assert error(table.blt, rounds) == pytest.approx(float(worst), rel=1e-9)


def test_without_buffers_noise_is_independent() -> None:
    nothing = Blt((), ())
    assert sensitivity(nothing, Participation(100, 10, 10)) == pytest.approx(math.sqrt(10))
    assert sensitivity(nothing, Participation(100, 40, 10)) == pytest.approx(math.sqrt(3))
    assert error(nothing, 100) == pytest.approx(10)


@pytest.mark.parametrize(
    "blt",
    [Blt((0.5,), (-0.1,)), Blt((1.0,), (-0.1,)), Blt((0.9,), (1.1,)), Blt((1.01,), (0.5,)),
     Blt((0.5,), (math.nan,)), Blt((0.1, 0.9), (0.6, -0.2))],
)  # fmt: skip
def test_coefficients_that_are_negative_or_increase_are_refused(blt: Blt) -> None:
    with pytest.raises(PrivacyError, match="its sensitivity is not known"):
        sensitivity(blt, Participation(200, 2, 3))
