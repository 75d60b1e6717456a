"""Gaussian noise far from the middle, where a draw of 64 bits alone would skip values."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.special import ndtr

from atoll.noise import Stream, standard_normal

KEY = bytes(range(32))
GRID = 2.0**-20
"""Of the releases that noise is rounded for, in deviations: at most so fine."""


class Told(Stream):
    """A stream that gives these words."""

    def __init__(self, *words: int) -> None:
        super().__init__(KEY)
        self._told = list(words)

    def words(self, count: int) -> NDArray[np.uint64]:
        found, self._told = self._told[:count], self._told[count:]
        assert len(found) == count, "more words were read than are needed"
        return np.array(found, np.uint64)


def _drawn(*words: int) -> float:
    return float(standard_normal(Told(*words), (1,))[0])


@pytest.mark.parametrize("size", [5, 6, 7, 8])
@pytest.mark.parametrize("sign", [0, 1])
def test_no_value_of_a_tail_is_skipped(size: float, sign: int) -> None:
    middle = int(Fraction(float(ndtr(-size))) * 2**128)
    every = [middle + (place << middle.bit_length() - 53) for place in range(-500, 500)]
    first = [(one >> 64) << 1 | sign for one in every]
    values = standard_normal(Told(*first, *[one % 2**64 for one in every]), (1000,)).abs().numpy()
    assert abs(values[500] - size) < 1e-12
    assert np.abs(np.diff(values)).max() < 1e-14 < GRID
    assert abs(values[0] - values[-1]) > 1e-15


@pytest.mark.parametrize(
    ("words", "share"),
    [
        ((1 << 63, 0), Fraction(1, 4)),
        ((3 << 61,), Fraction(3, 16)),
        ((1 << 54,), Fraction(1, 2**11)),
        (((1 << 54) - 2, 5), Fraction((1 << 53) - 1, 2**64) + Fraction(5, 2**128)),
        ((2, 3), Fraction(1, 2**64) + Fraction(3, 2**128)),
        ((0, 1 << 60), Fraction(1, 2**68)),
        ((0, 5, 7), Fraction(5, 2**128) + Fraction(7, 2**192)),
        ((0, 0, 0, 9 << 60), Fraction(9, 2**196)),
    ],
)
def test_a_value_is_where_its_bits_say(words: tuple[int, ...], share: Fraction) -> None:
    found = _drawn(*words)
    assert math.erfc(-found / math.sqrt(2)) / 2 == pytest.approx(float(share), rel=1e-12)
    assert _drawn(words[0] | 1, *words[1:]) == -found


def test_the_middle_and_beyond_what_one_word_reaches() -> None:
    assert _drawn(2**64 - 1) == 0.0
    assert _drawn(0, 0, 1 << 63) < -13


def test_a_tail_has_its_distribution() -> None:
    draw, count = np.random.default_rng(0), 20_000
    first = draw.integers(0, 2**20, count, np.uint64)
    more = draw.integers(0, 2**64, count + 100, np.uint64)
    values = standard_normal(Told(*first.tolist(), *more.tolist()), (count,)).numpy()
    assert np.abs(values).min() > 7.5
    assert stats.kstest(ndtr(-np.abs(values)) * 2.0**45, "uniform").pvalue > 1e-3
    assert abs((values > 0).mean() - 0.5) < 5 * 0.5 / math.sqrt(count)


def test_a_stream_repeats_its_noise_and_further_words_are_of_the_same_stream() -> None:
    stream = Stream(KEY, "test")
    both = [standard_normal(stream, (100_000,)), standard_normal(stream, (100_000,))]
    again = Stream(KEY, "test")
    assert all(one.equal(standard_normal(again, (1000, 100)).flatten()) for one in both)
    short = int((Stream(KEY, "test").words(100_000) < 1 << 54).sum())
    assert 50 < short < 200
    before = Stream(KEY, "test")
    before.words(100_000 + short)
    assert both[1].equal(standard_normal(before, (100_000,)))
