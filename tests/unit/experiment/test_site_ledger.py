"""What a site writes down of runs, and when it takes part no longer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from atoll.accounting import InTurns, Poisson, spent
from atoll.config.privacy import Privacy
from atoll.errors import PolicyError
from atoll.experiment.site_ledger import Asked, SiteLedger
from atoll.ledger import verified
from atoll.policy import Policy
from atoll.policy.schema import Privacy as Rules
from atoll.protection import Protection
from atoll.protection.cohorts import Drawing

SAMPLING = Poisson(rate=0.1)


def _run(noise: float = 1.0, rounds: int = 20, epsilon: float | None = None) -> Protection:
    settings = Privacy(noise_multiplier=noise, epsilon=epsilon)
    return Protection(settings, Drawing(100, 10.0, SAMPLING), rounds)


def _ledger(folder: Path, **rules: float) -> SiteLedger:
    return SiteLedger(folder, "ada", Policy(privacy=Rules(required=True, **rules)))


def _epsilon(*runs: Protection) -> float:
    return spent([run.released(run.noise_multiplier, run.rounds) for run in runs], 1e-5).epsilon


def test_a_run_counts_whole_from_the_first_question_and_once(tmp_path: Path) -> None:
    ledger, run = _ledger(tmp_path), _run()
    ledger.check("one", run)
    for asked in ((3, 4), (3, 4), (9, 10), (20, 30)):
        assert ledger.write("one", run, Asked(*asked)) == _epsilon(run)
    assert len(verified(tmp_path / "privacy").releases) == 1


def test_runs_add_up_over_the_life_of_a_site(tmp_path: Path) -> None:
    one, other = _run(), _run(noise=2.0, rounds=5)
    _ledger(tmp_path).write("one", one, Asked(1, 1))
    assert _ledger(tmp_path).write("other", other, Asked(1, 1)) == _epsilon(one, other)


def test_a_run_that_is_extended_counts_what_is_added(tmp_path: Path) -> None:
    _ledger(tmp_path).write("one", _run(rounds=20), Asked(1, 1))
    assert _ledger(tmp_path).write("one", _run(rounds=30), Asked(25, 50)) == _epsilon(
        _run(rounds=30)
    )


def test_a_round_that_is_asked_again_is_one_release_more(tmp_path: Path) -> None:
    ledger, run = _ledger(tmp_path), _run()
    ledger.write("one", run, Asked(3, 4))
    assert ledger.write("one", run, Asked(3, 8)) == _epsilon(_run(rounds=21))
    assert ledger.write("one", run, Asked(3, 8)) == _epsilon(_run(rounds=21))


@pytest.mark.parametrize("number", [0, 21, 1000])
def test_a_round_that_the_run_has_not_is_refused(number: int, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=f"round {number} is asked for, and the run has 20"):
        _ledger(tmp_path).write("one", _run(), Asked(number, 4))


def test_no_run_crosses_the_budget_of_a_life(tmp_path: Path) -> None:
    run = _run()
    both = _epsilon(run, run)
    enough, tight = (_ledger(tmp_path, lifetime_epsilon=both + e) for e in (0.01, -0.01))
    enough.write("one", run, Asked(1, 1))
    tight.check("one", run)
    with pytest.raises(PolicyError, match=r"all runs here spend epsilon .*; this site allows"):
        tight.check("two", run)
    with pytest.raises(PolicyError, match="this site allows"):
        tight.write("two", run, Asked(1, 1))
    assert len(verified(tmp_path / "privacy").releases) == 1
    enough.check("two", run)
    # So are rounds that are asked again and again.
    spent = [tight.write("one", run, Asked(1, exchange)) for exchange in range(2, 4)]
    assert spent[-1] == _epsilon(_run(rounds=22))
    narrow = _ledger(tmp_path, lifetime_epsilon=_epsilon(_run(rounds=22)) + 0.001)
    with pytest.raises(PolicyError, match="this site allows"):
        narrow.write("one", run, Asked(1, 4))


def test_a_server_that_promises_what_its_noise_does_not_keep(tmp_path: Path) -> None:
    run = _run(epsilon=5.0, noise=0.6)
    with pytest.raises(PolicyError, match=r"promises epsilon 5, and with .* of 0\.6 it spends"):
        _ledger(tmp_path).check("one", run)
    _ledger(tmp_path).check("one", replace(run, rounds=1))


def test_noise_that_a_server_solved_is_held_to_the_rule(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"multiplier is 1; this site asks for 1\.5"):
        _ledger(tmp_path, min_noise_multiplier=1.5).check("one", _run())


def test_rounds_whose_noise_is_taken_back_are_asked_for_in_turns_and_once(tmp_path: Path) -> None:
    settings = Privacy(noise_multiplier=1.0, mechanism="blt", sampling="turns")
    # Ten of a hundred clients a round: each comes again after ten rounds.
    run = Protection(settings, Drawing(100, 10.0, InTurns()), 30)
    ledger, all_of_it = _ledger(tmp_path), spent([run.released(1.0, 1)], 1e-5).epsilon
    asked = [Asked(3, 4), Asked(3, 4), Asked(13, 14), Asked(23, 24)]
    assert {ledger.write("one", run, each) for each in asked} == {all_of_it}
    with pytest.raises(PolicyError, match="round 3 is asked for twice, and its noise is taken"):
        ledger.write("one", run, Asked(3, 8))
    for number, near in ((4, 3), (12, 13), (22, 23), (30, 23)):
        why = f"round {number} is asked for after round {near}, .* after 10 rounds at the earliest"
        with pytest.raises(PolicyError, match=why):
            ledger.write("one", run, Asked(number, 50 + number))
    assert len(verified(tmp_path / "privacy").releases) == 1
    # Another run has turns of its own.
    ledger.write("two", run, Asked(4, 5))
