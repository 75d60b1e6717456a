"""Which table serves a run, and how well."""

from __future__ import annotations

import math

import pytest

from atoll.errors import ConfigError
from atoll.matrix import Participation, error, sensitivity, strategy
from atoll.matrix.tables import MOST_ROUNDS, tables

GAINS = [((100, 10, 10), 2.52), ((500, 50, 10), 4.98), ((1000, 1000, 1), 9.67),
         ((2000, 100, 20), 7.40)]  # fmt: skip


# Runs that no table was made for, and what a table of their own gains (`benchmarks/blt`).
BETWEEN = [((30, 3, 10), 1.53), ((150, 20, 8), 3.25), ((300, 40, 8), 4.32), ((700, 100, 7), 6.32),
           ((1500, 200, 8), 8.61)]  # fmt: skip


@pytest.mark.parametrize(("shape", "gain"), GAINS)
def test_correlated_noise_gains_as_much_as_was_measured(
    shape: tuple[int, int, int], gain: float
) -> None:
    assert strategy(Participation(*shape)).gain == pytest.approx(gain, abs=0.015)


@pytest.mark.parametrize(("shape", "gain"), BETWEEN)
def test_runs_between_tables_are_served_as_well_as_by_their_own(
    shape: tuple[int, int, int], gain: float
) -> None:
    assert strategy(Participation(*shape)).gain > 0.98 * gain


def test_numbers_are_those_of_the_run_and_not_of_the_table() -> None:
    for shape in ((137, 9, 12), (730, 30, 4), (1999, 1, 3), (17, 5, 1)):
        run = Participation(*shape)
        found = strategy(run)
        assert found.participation == run
        assert found.sensitivity == sensitivity(found.blt, run)
        assert found.error == error(found.blt, run.rounds)
        count = min(run.times, math.ceil(run.rounds / run.separation))
        independent = math.sqrt(count * run.rounds)
        assert found.gain == pytest.approx(independent / (found.sensitivity * found.error))


def test_it_is_the_best_of_all_tables() -> None:
    for table in tables()[::4]:
        if table.made_for.separation > 1:
            own = sensitivity(table.blt, table.made_for) * error(table.blt, table.made_for.rounds)
            found = strategy(table.made_for)
            assert found.sensitivity * found.error <= own


def test_a_run_that_is_longer_than_the_tables_is_refused() -> None:
    assert strategy(Participation(MOST_ROUNDS, 100, 20)).gain > 7
    with pytest.raises(ConfigError, match="2001 rounds, and the tables of coefficients reach 2000"):
        strategy(Participation(MOST_ROUNDS + 1, 100, 20))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 3), (6, 1, 6), (10, 1, 10)])
def test_where_correlation_gains_nothing_it_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match="gains nothing; use mechanism 'gaussian'"):
        strategy(Participation(*shape))
