"""What a run plans is refused before it begins where its noise or a budget was made for less."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from dp_accounting.gaussian_mechanism import get_epsilon_gaussian

from atoll.errors import ConfigError, PrivacyError
from atoll.experiment.setup import Setup
from atoll.ledger import verified
from atoll.runs.account import LEDGER
from atoll.runs.run import federated, run_experiment
from atoll.runs.where import Observer
from tests.support.models import Zoo
from tests.support.scenes import scene

SECTIONS: dict[str, Mapping[str, Any]] = {
    "model": {"pooling": "mean"},
    "adapter": {"r": 2, "target_modules": ["query"], "head": "train"},
    "federation": {"num_rounds": 3, "clients_per_round": 2},
    "privacy": {"noise_multiplier": 1.0, "clip": 0.5, "mechanism": "blt", "sampling": "turns"},
    "evaluate": {"baselines": []},
}
ALL: dict[str, Mapping[str, Any]] = {
    "privacy": {"mechanism": "gaussian", "sampling": "everyone", "noise_multiplier": 2.0},
    "federation": {"clients_per_round": None, "num_rounds": 2},
}


def _setup(folder: Path, zoo: Zoo, **sections: Mapping[str, Any]) -> Setup:
    both = {name: {**SECTIONS.get(name, {}), **sections.get(name, {})} for name in
            {**SECTIONS, **sections}}  # fmt: skip
    return scene(folder, zoo, **both)


def _all(folder: Path, zoo: Zoo, *, rounds: int = 2, **privacy: Any) -> Setup:
    """A run of all clients, whose ε has a closed form."""
    federation = {**ALL["federation"], "num_rounds": rounds}
    return _setup(folder, zoo, privacy={**ALL["privacy"], **privacy}, federation=federation)


def _gaussian(rounds: int) -> float:
    return float(get_epsilon_gaussian(2.0 / rounds**0.5, 1e-5))


def _after(setup: Setup, run: Path, rounds: int) -> None:
    for line in federated(setup, run, Observer()):
        if line.round == rounds:
            return


def _content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("done", [1, 3])
@pytest.mark.parametrize("solved", [False, True])
def test_rounds_that_share_noise_cannot_become_more(
    done: int, solved: bool, tmp_path: Path, zoo: Zoo
) -> None:
    run = tmp_path / "run"
    privacy = {"noise_multiplier": None, "epsilon": 8.0} if solved else {}
    setup = _setup(tmp_path, zoo, privacy=privacy)
    _after(setup, run, done) if done < 3 else run_experiment(setup, run, Observer())
    before = _content(run)
    more = _setup(tmp_path, zoo, privacy=privacy, federation={"num_rounds": 5})
    with pytest.raises(PrivacyError, match=r"was planned for 3 rounds, .* not for 5 rounds"):
        run_experiment(more, run, Observer())
    assert _content(run) == before
    assert run_experiment(setup, run, Observer())["num_rounds"] == 3


def test_a_plan_is_free_until_something_is_released(tmp_path: Path, zoo: Zoo) -> None:
    _after(_setup(tmp_path, zoo), tmp_path / "run", 0)
    more = _setup(tmp_path, zoo, federation={"num_rounds": 5})
    assert run_experiment(more, tmp_path / "run", Observer())["num_rounds"] == 5


def test_solved_noise_holds_no_more_rounds_than_it_was_solved_for(tmp_path: Path, zoo: Zoo) -> None:
    solved, run = {"noise_multiplier": None, "epsilon": 8.0}, tmp_path / "run"
    run_experiment(_all(tmp_path, zoo, **solved), run, Observer())
    before = _content(run)
    why = r"solved from privacy\.epsilon 8 for fewer rounds \(federation\.num_rounds: 2 -> 3\)"
    with pytest.raises(PrivacyError, match=why):
        run_experiment(_all(tmp_path, zoo, rounds=3, **solved), run, Observer())
    assert _content(run) == before


def test_noise_that_the_file_names_holds_as_many_rounds_as_epsilon_does(
    tmp_path: Path, zoo: Zoo
) -> None:
    named, run = {"epsilon": _gaussian(3) + 0.01}, tmp_path / "run"
    run_experiment(_all(tmp_path, zoo, **named), run, Observer())
    assert (
        run_experiment(_all(tmp_path, zoo, rounds=9, **named), run, Observer())["num_rounds"] == 3
    )


def test_all_runs_of_a_ledger_stay_below_what_they_may_spend_together(
    tmp_path: Path, zoo: Zoo
) -> None:
    shared = {"ledger": str(tmp_path / "ledger"), "lifetime_epsilon": _gaussian(5)}
    notes: list[str] = []
    for name in ("one", "two"):
        run_experiment(_all(tmp_path, zoo, **shared), tmp_path / name, Observer(notes.append))
    (said,) = [note for note in notes if note.startswith("the ledger counts")]
    assert said == (
        f"the ledger counts 1 other run beside this one: epsilon {_gaussian(2):.4g} so far, "
        f"{_gaussian(4):.4g} after all rounds of this one"
    )
    why = rf"from epsilon {_gaussian(4):.4g} to {_gaussian(6):.4g}, above privacy\.lifetime_epsilon"
    with pytest.raises(PrivacyError, match=why):
        run_experiment(_all(tmp_path, zoo, **shared), tmp_path / "three", Observer())
    assert verified(tmp_path / "ledger").spent(1e-5).epsilon == pytest.approx(_gaussian(4))
    # What is left holds one round.
    last = run_experiment(_all(tmp_path, zoo, rounds=1, **shared), tmp_path / "four", Observer())
    assert last["privacy"]["lifetime_epsilon"] == pytest.approx(_gaussian(5))


@pytest.mark.parametrize("before", [0, 2])
def test_a_run_that_pays_again_stops_before_all_runs_spent_too_much(
    before: int, tmp_path: Path, zoo: Zoo
) -> None:
    run, notes = tmp_path / "run", list[str]()
    shared = {"ledger": str(tmp_path / "ledger"), "lifetime_epsilon": _gaussian(4 + before)}
    if before:
        run_experiment(_all(tmp_path, zoo, rounds=before, **shared), tmp_path / "a", Observer())
    setup = _all(tmp_path, zoo, rounds=4, **shared)
    _after(setup, run, 2)
    shutil.rmtree(run / "checkpoints" / "round-2")
    summary = run_experiment(setup, run, Observer(notes.append))
    assert summary["num_rounds"] == 3
    assert summary["epsilon"] == pytest.approx(_gaussian(4))
    assert summary["privacy"]["lifetime_epsilon"] == pytest.approx(_gaussian(4 + before))
    assert any("spend more than privacy.lifetime_epsilon" in note for note in notes)


def test_a_larger_lifetime_is_the_same_run(tmp_path: Path, zoo: Zoo) -> None:
    _after(_all(tmp_path, zoo, lifetime_epsilon=9.0), tmp_path / "run", 1)
    more = _all(tmp_path, zoo, lifetime_epsilon=99.0)
    assert run_experiment(more, tmp_path / "run", Observer())["num_rounds"] == 2


def test_a_lifetime_below_what_one_run_may_spend_is_refused(tmp_path: Path, zoo: Zoo) -> None:
    with pytest.raises(ConfigError, match=r"lifetime_epsilon is 5, less than the privacy\.epsilon"):
        _all(tmp_path, zoo, epsilon=8.0, lifetime_epsilon=5.0)


def test_what_was_spent_counts_on_when_rows_come_or_go(tmp_path: Path, zoo: Zoo) -> None:
    shared, notes = {"ledger": str(tmp_path / "ledger")}, list[str]()
    run_experiment(_all(tmp_path, zoo, **shared), tmp_path / "one", Observer())
    rows = next((tmp_path / "data").glob("*/train.jsonl"))
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:-1]))
    summary = run_experiment(
        _all(tmp_path, zoo, **shared), tmp_path / "two", Observer(notes.append)
    )
    assert any("began with other rows than there are now" in note for note in notes)
    assert summary["privacy"]["lifetime_epsilon"] == pytest.approx(_gaussian(4))


def test_clients_and_rows_do_not_add_up(tmp_path: Path, zoo: Zoo) -> None:
    shared = {"ledger": str(tmp_path / "ledger")}
    run_experiment(_all(tmp_path, zoo, **shared), tmp_path / "one", Observer())
    rows = _all(tmp_path, zoo, **shared, unit="example", sampling="poisson")
    why = r"counts whole clients, and this run hides single rows \(privacy\.unit is example\)"
    with pytest.raises(PrivacyError, match=why):
        run_experiment(rows, tmp_path / "two", Observer())


def test_a_budget_of_one_round_holds_the_round_that_a_kill_left(tmp_path: Path, zoo: Zoo) -> None:
    setup, run = _all(tmp_path, zoo, rounds=1, epsilon=_gaussian(1) + 0.01), tmp_path / "run"
    _after(setup, run, 0)
    shutil.copytree(run, tmp_path / "before")
    run_experiment(setup, run, Observer())
    shutil.copytree(run / LEDGER, tmp_path / "before" / LEDGER, dirs_exist_ok=True)
    assert run_experiment(setup, tmp_path / "before", Observer())["epsilon"] == _gaussian(1)
