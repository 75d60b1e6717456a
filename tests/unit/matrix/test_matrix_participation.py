"""Who may be asked: whatever is chosen among them keeps what the noise was planned for."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import ConfigError, PrivacyError
from atoll.matrix import Participation, check_history, eligible, in_turns

CLIENTS = tuple(f"site-{i}" for i in range(7))


@given(st.data(), st.integers(1, 25), st.integers(1, 9), st.integers(1, 6))
@settings(deadline=None)
def test_any_choice_of_those_who_may_keeps_the_promise(
    data: st.DataObject, rounds: int, separation: int, times: int
) -> None:
    plan = Participation(rounds, separation, times)
    history: dict[str, list[int]] = {}
    for number in range(1, rounds + 1):
        may = eligible(plan, history, CLIENTS, number)
        assert list(may) == [client for client in CLIENTS if client in may]
        for client in set(CLIENTS) - set(may):
            done = history[client]
            assert len(done) == times or number - done[-1] < separation
        for client in data.draw(st.sets(st.sampled_from(may)) if may else st.just(set())):
            history.setdefault(client, []).append(number)
    check_history(plan, history)
    for done in history.values():
        assert len(done) <= times
        assert all(b - a >= separation for a, b in itertools.combinations(done, 2))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60))
@settings(deadline=None)
def test_in_turns_there_are_always_enough(population: int, cohort: int, rounds: int) -> None:
    cohort = min(cohort, population)
    plan = in_turns(population, cohort, rounds)
    clients = tuple(f"c{i}" for i in range(population))
    history: dict[str, list[int]] = {}
    for number in range(1, rounds + 1):
        may = eligible(plan, history, clients, number)
        assert len(may) >= cohort
        for client in sorted(may, key=lambda client: history.get(client, [0])[-1])[:cohort]:
            history.setdefault(client, []).append(number)
    check_history(plan, history)


def test_a_round_that_is_asked_again_after_a_fall_back_counts_what_came_later() -> None:
    plan = Participation(20, 5, 3)
    assert eligible(plan, {"a": [9]}, ("a", "b"), 6) == ("b",)
    assert eligible(plan, {"a": [9]}, ("a", "b"), 4) == ("a", "b")
    assert eligible(plan, {"a": [9]}, ("b", "a"), 14) == ("b", "a")


@pytest.mark.parametrize("number", [0, -1, 21])
def test_rounds_that_were_not_planned_are_refused(number: int) -> None:
    with pytest.raises(PrivacyError, match=f"round {number} of a run .* planned for 20"):
        eligible(Participation(20, 5, 3), {}, CLIENTS, number)


@pytest.mark.parametrize(
    ("rounds", "match"),
    [
        ([1, 6, 11, 16], "'b' took part 4 times, and the noise was planned for 3"),
        ([12, 1, 8], "'b' took part in rounds 8 and 12, and the noise was planned for 5 rounds"),
        ([3, 3], "rounds 3 and 3"),
        ([0, 7], "rounds 0 to 7 of a run planned for 20"),
        ([7, 21], "rounds 7 to 21"),
    ],
)
def test_a_history_that_breaks_the_promise_is_refused(rounds: list[int], match: str) -> None:
    with pytest.raises(PrivacyError, match=match):
        check_history(Participation(20, 5, 3), {"b": rounds, "c": [1, 6], "a": []})


@pytest.mark.parametrize("wrong", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_participation_that_makes_no_sense_is_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match="is 0; give a number from 1 on"):
        Participation(*wrong)
    with pytest.raises(ConfigError, match="11 clients a round of a population of 10"):
        in_turns(10, 11, 5)
