"""Who takes part when: what the noise was planned for is what the cohorts of a run keep."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.accounting import InTurns
from atoll.errors import ConfigError
from atoll.matrix import Participation, in_turns
from atoll.protection.cohorts import Drawing


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60))
@settings(deadline=None)
def test_cohorts_in_turns_keep_what_the_noise_was_planned_for(
    population: int, cohort: int, rounds: int
) -> None:
    cohort = min(cohort, population)
    plan = in_turns(population, cohort, rounds)
    drawing = Drawing(population, float(cohort), InTurns())
    clients = tuple(f"c{i:02}" for i in range(population))
    history: dict[str, list[int]] = {client: [] for client in clients}
    for number in range(1, rounds + 1):
        asked = drawing.cohort(bytes(32), number, clients)
        assert len(asked) == cohort
        for client in asked:
            history[client].append(number)
    for done in history.values():
        assert len(done) <= plan.possible
        assert all(later - one >= plan.separation for one, later in pairwise(done))


@pytest.mark.parametrize("wrong", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_participation_that_makes_no_sense_is_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match="is 0; give a number from 1 on"):
        Participation(*wrong)
    with pytest.raises(ConfigError, match="11 clients a round of a population of 10"):
        in_turns(10, 11, 5)
