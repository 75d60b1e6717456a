"""A private run: its cohorts, what it writes down, what a crash repeats, and where it stops."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from atoll.accounting import Everyone, Poisson, Release, spent, stated
from atoll.errors import CompositionError, ConfigError, PrivacyError
from atoll.experiment.setup import Setup
from atoll.ledger import verified
from atoll.matrix import ROUND
from atoll.noise import Secret
from atoll.protection import Protection
from atoll.runs import run as run_module
from atoll.runs.account import LEDGER, SECRET
from atoll.runs.run import federated, run_experiment
from atoll.runs.where import Observer
from atoll.servers.noised import unveiled
from tests.support.models import Zoo
from tests.support.scenes import scene

SECTIONS: dict[str, Mapping[str, Any]] = {
    "model": {"pooling": "mean"},
    "adapter": {"r": 2, "target_modules": ["query"], "head": "train"},
    "federation": {"num_rounds": 3, "clients_per_round": 2},
    "privacy": {"noise_multiplier": 1.0, "clip": 0.5},
    "evaluate": {"baselines": []},
}


def _setup(folder: Path, zoo: Zoo, **sections: Mapping[str, Any]) -> Setup:
    both = {name: {**SECTIONS.get(name, {}), **sections.get(name, {})} for name in
            {**SECTIONS, **sections}}  # fmt: skip
    return scene(folder, zoo, **both)


def _cohort(
    protection: Protection, number: int, exchange: int, roster: tuple[str, ...]
) -> tuple[str, ...]:
    return protection.drawing.cohort(protection.vault.key(exchange), number, roster)


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def _same(run: Path, other: Path) -> bool:
    a, b = _weights(run), _weights(other)
    return all(torch.equal(a[name], b[name]) for name in a)


def _rounds(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]


def test_a_run_writes_down_what_it_releases_and_says_what_that_means(
    tmp_path: Path, zoo: Zoo
) -> None:
    setup, run = _setup(tmp_path, zoo), tmp_path / "run"
    summary = run_experiment(setup, run, Observer())
    rate = 2 / len(setup.data.clients)
    release = Release(unit="client", noise_multiplier=1.0, sampling=Poisson(rate=rate), steps=3)
    want = spent([release], 1e-5)
    assert summary["epsilon"] == want.epsilon
    assert summary["privacy"]["adjacency"] == want.adjacency == "add-or-remove-one"
    assert summary["privacy"]["releases"] == 3
    assert [line.entry.round for line in verified(run / LEDGER).lines] == [1, 2, 3]
    lines = _rounds(run)
    assert [line["epsilon"] for line in lines] == [
        0.0, *(line.epsilon for line in verified(run / LEDGER).lines)
    ]  # fmt: skip
    # Nothing tells who took part, or how they fared.
    assert {line["clients"] for line in lines[1:]} == {None}
    assert {line["loss"] for line in lines} == {None}
    assert len({line["bytes_up"] - lines[0]["bytes_up"] for line in lines[1:]}) == 1
    assert not (run / SECRET).exists()


@pytest.mark.parametrize(
    "sections",
    [
        {},
        # The same cohorts: nothing but noise tells such runs apart.
        {"federation": {"clients_per_round": None}, "privacy": {"sampling": "everyone"}},
        {"privacy": {"mechanism": "blt", "sampling": "turns"}},
    ],
)
def test_two_runs_of_one_file_share_no_noise(
    sections: Mapping[str, Mapping[str, Any]], tmp_path: Path, zoo: Zoo
) -> None:
    for name in ("one", "other"):
        setup = _setup(tmp_path / name, zoo, **sections)
        run_experiment(setup, tmp_path / name / "run", Observer())
    a, b = (_weights(tmp_path / name / "run") for name in ("one", "other"))
    moved = torch.cat([(a[n] - b[n]).flatten() for n in a])
    assert float((moved != 0).double().mean()) > 0.99


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_a_round_that_a_crash_undid_is_released_again_with_its_own_noise(
    tmp_path: Path, zoo: Zoo, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, copy = tmp_path / "run", tmp_path / "copy"
    for line in federated(_setup(tmp_path, zoo), run, Observer()):
        if line.round == rounds:
            break
    shutil.copytree(run, copy)
    run_experiment(_setup(tmp_path, zoo), run, Observer())
    with monkeypatch.context() as patch:

        def killed(*arguments: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(run_module, "save_round", killed)
        with pytest.raises(KeyboardInterrupt):
            run_experiment(_setup(tmp_path, zoo), copy, Observer())
    assert len(verified(copy / LEDGER).releases) == rounds + 1
    summary = run_experiment(_setup(tmp_path, zoo), copy, Observer())
    assert _same(run, copy)
    assert summary["privacy"]["releases"] == 3
    assert len(verified(copy / LEDGER).lines) == 4


def test_a_run_that_fell_back_behind_what_it_released_pays_again(tmp_path: Path, zoo: Zoo) -> None:
    run = tmp_path / "run"
    for line in federated(_setup(tmp_path, zoo), run, Observer()):
        if line.round == 2:
            break
    tensors = run / "checkpoints" / "round-2" / "server.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-7] + b"harmful")
    summary = run_experiment(_setup(tmp_path, zoo), run, Observer())
    assert summary["privacy"]["releases"] == 4
    noises = [line.entry.noise for line in verified(run / LEDGER).lines]
    assert len(set(noises)) == 4


def test_a_run_stops_before_its_budget_is_crossed(tmp_path: Path, zoo: Zoo) -> None:
    notes: list[str] = []
    setup = _setup(tmp_path, zoo, privacy={"epsilon": 5.0, "noise_multiplier": 0.9})
    summary = run_experiment(setup, tmp_path / "run", Observer(note=notes.append))
    assert 0 < summary["num_rounds"] < 3
    assert summary["epsilon"] <= 5.0
    one_more = setup.protection
    assert one_more is not None
    released = one_more.released(0.9, summary["num_rounds"] + 1)
    assert one_more.spent([released]).epsilon > 5.0
    assert any("one more would spend more than privacy.epsilon 5; stopped" in n for n in notes)


@pytest.mark.parametrize("moment", ["save_round", "export_adapter"])
def test_a_run_that_ends_at_its_budget_goes_on_to_that_end(
    moment: str, tmp_path: Path, zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in its last round, which is paid for, or behind it; and asked for more rounds."""

    def setup(rounds: int = 3) -> Setup:
        privacy = {"epsilon": 5.0, "noise_multiplier": 0.9}
        return _setup(tmp_path, zoo, privacy=privacy, federation={"num_rounds": rounds})

    whole = run_experiment(setup(), tmp_path / "run", Observer())
    last, copy = whole["num_rounds"], tmp_path / "copy"
    saved = getattr(run_module, moment)

    def killed(*given: Any, **named: Any) -> None:
        if moment == "export_adapter" or given[1].position.round == last:
            raise KeyboardInterrupt
        saved(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            run_experiment(setup(), copy, Observer())
    for rounds in (3, 8):
        again = run_experiment(setup(rounds), copy, Observer())
        assert (again["num_rounds"], again["epsilon"]) == (last, whole["epsilon"])
        assert len(verified(copy / LEDGER).releases) == last


def test_a_budget_that_no_round_fits_asks_nobody(tmp_path: Path, zoo: Zoo) -> None:
    setup = _setup(tmp_path, zoo, privacy={"epsilon": 0.5, "noise_multiplier": 0.9})
    with pytest.raises(PrivacyError, match=r"spend more than privacy\.epsilon 0\.5"):
        run_experiment(setup, tmp_path / "run", Observer())
    assert verified(tmp_path / "run" / LEDGER).lines == ()


def test_noise_is_solved_for_all_rounds(tmp_path: Path, zoo: Zoo) -> None:
    privacy = {"epsilon": 6.0, "noise_multiplier": None}
    summary = run_experiment(_setup(tmp_path, zoo, privacy=privacy), tmp_path / "run", Observer())
    assert summary["num_rounds"] == 3
    assert 5.9 < summary["epsilon"] <= 6.0


def test_runs_that_share_a_ledger_add_up(tmp_path: Path, zoo: Zoo) -> None:
    # The same rows: the data set is one.
    privacy = {"ledger": str(tmp_path / "ledger")}
    first = run_experiment(_setup(tmp_path, zoo, privacy=privacy), tmp_path / "a", Observer())
    second = run_experiment(_setup(tmp_path, zoo, privacy=privacy), tmp_path / "b", Observer())
    assert first["privacy"]["lifetime_epsilon"] == first["epsilon"] == second["epsilon"]
    assert second["privacy"]["lifetime_epsilon"] > second["epsilon"]


def test_an_adaptive_bound_moves_and_is_paid_for(tmp_path: Path, zoo: Zoo) -> None:
    clip = {"adaptive": True, "initial": 0.5, "count_noise": 2.0}
    setup = _setup(tmp_path, zoo, privacy={"clip": clip})
    summary = run_experiment(setup, tmp_path / "run", Observer())
    fixed = _setup(tmp_path, zoo).protection
    assert fixed is not None
    assert summary["epsilon"] == fixed.spent([fixed.released(1.0, 3)]).epsilon


@pytest.mark.parametrize("sampling", ["fixed", "everyone", "poisson"])
def test_another_sampler_is_accounted_as_it_is(sampling: str, tmp_path: Path, zoo: Zoo) -> None:
    federation = {"clients_per_round": None} if sampling == "everyone" else {}
    setup = _setup(tmp_path, zoo, privacy={"sampling": sampling}, federation=federation)
    summary = run_experiment(setup, tmp_path / "run", Observer())
    assert summary["privacy"]["sampling"]["kind"] == sampling
    adjacency = "replace-one" if sampling == "fixed" else "add-or-remove-one"
    assert summary["privacy"]["adjacency"] == adjacency


def test_cohorts_are_secret_coins(tmp_path: Path, zoo: Zoo) -> None:
    protection = _setup(tmp_path, zoo).protection
    assert protection is not None
    roster = tuple(f"c{i:03}" for i in range(200))
    rate = (
        protection.drawing.sampling.rate if isinstance(protection.drawing.sampling, Poisson) else 0
    )
    cohorts = [_cohort(protection, 1, exchange, roster) for exchange in range(100)]
    share = sum(map(len, cohorts)) / (100 * 200)
    assert share == pytest.approx(rate, abs=5 * (rate * (1 - rate) / 20_000) ** 0.5)
    assert len(set(cohorts)) == 100
    assert all(list(cohort) == sorted(cohort) for cohort in cohorts)
    assert _cohort(protection, 1, 3, roster) == cohorts[3]
    other = _setup(tmp_path, zoo).protection
    assert other is not None
    assert _cohort(other, 1, 3, roster) != cohorts[3]


def test_a_cap_and_a_fixed_size_hold(tmp_path: Path, zoo: Zoo) -> None:
    capped = _setup(tmp_path, zoo, privacy={"cap": 1}).protection
    fixed = _setup(tmp_path, zoo, privacy={"sampling": "fixed"}).protection
    assert capped is not None
    assert fixed is not None
    roster = tuple("abcde")
    sizes = {len(_cohort(capped, 1, exchange, roster)) for exchange in range(500)}
    assert sizes == {0, 1}
    drawn = [_cohort(fixed, 1, exchange, roster) for exchange in range(300)]
    assert {len(cohort) for cohort in drawn} == {2}
    assert len(set(drawn)) == 10


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"adapter": {"head": "ridge"}}, "adapter.head to train"),
        ({"federation": {"algorithm": "scaffold"}}, "channel 'control'"),
        ({"federation": {"algorithm": "fednova"}}, "stage 'clip' bounds channel"),
        ({"federation": {"stages": [{"name": "quantise", "dtype": "int8"}]}}, "quantise"),
        ({"train": {"class_weights": "balanced"}}, "class_weights is balanced"),
    ],
)
def test_what_would_leave_clients_in_the_open_is_refused(
    sections: dict[str, Any], words: str, tmp_path: Path, zoo: Zoo
) -> None:
    with pytest.raises((ConfigError, CompositionError), match=words.replace(".", r"\.")):
        _setup(tmp_path, zoo, **sections)


BLT = {"mechanism": "blt", "sampling": "turns"}


def test_noise_that_rounds_have_in_common_is_one_release(tmp_path: Path, zoo: Zoo) -> None:
    setup, run = _setup(tmp_path, zoo, privacy=BLT), tmp_path / "run"
    summary = run_experiment(setup, run, Observer())
    want = spent([Release(unit="client", noise_multiplier=1.0, sampling=Everyone())], 1e-5)
    assert summary["epsilon"] == want.epsilon
    assert summary["privacy"]["releases"] == 1
    assert summary["privacy"]["adjacency"] == "zero-out"
    assert summary["privacy"]["sampling"]["kind"] == "turns"
    assert "zero-out" in (stated(summary) or "")
    assert verified(run / LEDGER).spent(1e-5).adjacency == "zero-out"
    assert [line["epsilon"] for line in _rounds(run)] == [0.0, *[want.epsilon] * 3]
    assert setup.protection is not None
    assert setup.protection.correlated is not None
    assert setup.protection.spent([setup.protection.release]).adjacency == "zero-out"


def test_all_take_part_in_turns(tmp_path: Path, zoo: Zoo) -> None:
    protection = _setup(tmp_path, zoo, privacy=BLT).protection
    assert protection is not None
    roster = tuple("abcde")
    cohorts = [_cohort(protection, number, 0, roster) for number in range(1, 6)]
    assert cohorts == [("a", "b"), ("c", "d"), ("a", "e"), ("b", "c"), ("d", "e")]
    for client in roster:
        rounds = [number for number, cohort in enumerate(cohorts) if client in cohort]
        assert all(b - a >= 2 for a, b in pairwise(rounds))


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_run_with_common_noise_goes_on_as_it_was(rounds: int, tmp_path: Path, zoo: Zoo) -> None:
    run, copy = tmp_path / "run", tmp_path / "copy"
    for line in federated(_setup(tmp_path, zoo, privacy=BLT), run, Observer()):
        if line.round == rounds:
            break
    shutil.copytree(run, copy)
    for place in (run, copy):
        run_experiment(_setup(tmp_path, zoo, privacy=BLT), place, Observer())
    assert _same(run, copy)


def test_what_common_noise_goes_on_from_is_unreadable_in_a_checkpoint(
    tmp_path: Path, zoo: Zoo
) -> None:
    run = tmp_path / "run"
    for line in federated(_setup(tmp_path, zoo, privacy=BLT), run, Observer()):
        if line.round == 1:
            break
    stored = load_file(run / "checkpoints" / "round-1" / "server.safetensors")
    buffers = {name.split("/", 1)[1]: v for name, v in stored.items() if name.startswith("buffers")}
    assert len(buffers) > 1
    plain = unveiled(buffers, Secret(run / SECRET).kept)
    # After one round every buffer is that round's noise.
    for name in plain.keys() - {ROUND}:
        first, *others = plain[name]
        assert others
        assert all(torch.equal(first, other) for other in others)
        assert not torch.equal(buffers[name][0], buffers[name][1])
    with pytest.raises(PrivacyError, match="hidden under another secret than the run has now"):
        unveiled(buffers, bytes(32))


def test_common_noise_cannot_be_released_twice(tmp_path: Path, zoo: Zoo) -> None:
    run = tmp_path / "run"
    for line in federated(_setup(tmp_path, zoo, privacy=BLT), run, Observer()):
        if line.round == 2:
            break
    tensors = run / "checkpoints" / "round-2" / "server.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-7] + b"harmful")
    with pytest.raises(PrivacyError, match="cannot be released twice"):
        run_experiment(_setup(tmp_path, zoo, privacy=BLT), run, Observer())


@pytest.mark.parametrize("privacy", [{"sampling": "poisson"}, {"sampling": "fixed"}])
def test_common_noise_needs_turns(privacy: dict[str, str], tmp_path: Path, zoo: Zoo) -> None:
    with pytest.raises(ConfigError, match=r"mechanism is blt, and privacy\.sampling is"):
        _setup(tmp_path, zoo, privacy={"mechanism": "blt", **privacy})
