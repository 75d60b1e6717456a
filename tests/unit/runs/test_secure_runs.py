"""Runs with secure sums: the numbers of a plain run, in process and in processes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from dp_accounting.gaussian_mechanism import get_epsilon_gaussian
from safetensors.torch import load_file

from atoll.cli.privacy_text import show_verified
from atoll.core import Channel, Context
from atoll.errors import CompositionError, ConfigError
from atoll.experiment import checks, hiding
from atoll.experiment import setup as preparing
from atoll.experiment.setup import Setup
from atoll.ledger import verified
from atoll.report import facts
from atoll.report.gains import gains
from atoll.report.read import read_run
from atoll.report.tables import clients_table
from atoll.report.verdict import verdict
from atoll.report.write import write_report
from atoll.runs.account import LEDGER
from atoll.runs.run import run_experiment
from atoll.runs.where import Observer
from tests.support.models import Zoo
from tests.support.scenes import scene

SECURE = {"secure_aggregation": True, "min_survivors": 2, "corrupt": 0.0, "dropping": 0.0}
SECTIONS: dict[str, Mapping[str, Any]] = {
    "model": {"pooling": "mean"},
    "adapter": {"r": 2, "target_modules": ["query"], "head": "train"},
    "train": {"optimizer": "sgd", "learning_rate": 0.1},
    "federation": {"num_rounds": 2},
    "privacy": SECURE,
    "evaluate": {"baselines": []},
}


def _setup(folder: Path, zoo: Zoo, **sections: Mapping[str, Any]) -> Setup:
    both = {name: {**SECTIONS.get(name, {}), **sections.get(name, {})} for name in
            {**SECTIONS, **sections}}  # fmt: skip
    return scene(folder, zoo, **both)


def _trained(folder: Path, zoo: Zoo, **sections: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    run_experiment(_setup(folder, zoo, **sections), folder / "run", Observer())
    return load_file(folder / "run" / "adapter" / "adapter_model.safetensors")


@pytest.mark.parametrize("stages", [[], [{"name": "uniform"}]], ids=["by rows", "uniform"])
def test_a_secure_run_is_the_plain_one_to_a_rounding(
    stages: list[Any], tmp_path: Path, zoo: Zoo
) -> None:
    federation = {"stages": stages}
    plain = _trained(tmp_path / "a", zoo, federation=federation, privacy=_off())
    secure = _trained(tmp_path / "b", zoo, federation=federation)
    assert max(float((plain[n] - secure[n]).abs().max()) for n in plain) < 1e-5
    assert any(bool((plain[n] != 0).any()) for n in plain)


def _off() -> dict[str, Any]:
    return {"secure_aggregation": False, "min_survivors": 5, "corrupt": 0.1, "dropping": 0.1}


def _grouped(rule: str) -> dict[str, Any]:
    return {"aggregator": {"name": "grouped", "size": 2, "rule": rule}, "min_clients": 2}


def test_a_rule_over_groups_and_what_the_run_says_of_it(tmp_path: Path, zoo: Zoo) -> None:
    """A mean over groups, weighed by their clients, is the mean over all, whoever is in which."""
    uniform = {"stages": [{"name": "uniform"}]}
    plain = _trained(tmp_path / "a", zoo, federation=uniform, privacy=_off())
    secure = _trained(tmp_path / "b", zoo, federation=_grouped("mean"))
    assert max(float((plain[n] - secure[n]).abs().max()) for n in plain) < 1e-5
    summary = json.loads((tmp_path / "b" / "run" / "summary.json").read_text())
    assert summary["secure_sums"] == {"least": 2, "group": 2}
    said = facts.privacy(read_run(tmp_path / "b" / "run"))
    assert said.startswith("Differential privacy: none; ")
    assert "sums of groups of 2 clients (2 or more of them answered)" in said


def test_a_rule_over_groups_beside_rows_that_hide_themselves(tmp_path: Path, zoo: Zoo) -> None:
    privacy = {"unit": "example", "noise_multiplier": 1.0, "clip": 1.0}
    _trained(tmp_path, zoo, federation=_grouped("median"), privacy=privacy)
    said = facts.privacy(read_run(tmp_path / "run"))
    assert said.startswith("Differential privacy of single rows: ε = ")
    assert said.endswith("whose means a rule compared, and no client's update.")


def test_in_processes_too(tmp_path: Path, zoo: Zoo) -> None:
    here = _trained(tmp_path / "a", zoo, federation=_grouped("median"))
    runtime = {"runtime": {"name": "processes", "workers": 2}}
    there = _trained(tmp_path / "b", zoo, federation={**_grouped("median"), **runtime})
    assert max(float((here[n] - there[n]).abs().max()) for n in here) < 1e-5


def test_beside_noise_the_sum_is_what_is_noised(tmp_path: Path, zoo: Zoo) -> None:
    noise = {"noise_multiplier": 1e-4, "clip": 0.3}
    plain = _trained(tmp_path / "a", zoo, privacy={**_off(), **noise})
    secure = _trained(tmp_path / "b", zoo, privacy=noise)
    # Both cut to 0.3, and noise of 3e-5 among five clients.
    assert max(float((plain[n] - secure[n]).abs().max()) for n in plain) < 1e-4


def test_noise_is_on_the_grid_of_the_sum_that_it_hides(tmp_path: Path, zoo: Zoo) -> None:
    setup = _setup(tmp_path, zoo, privacy={"noise_multiplier": 1e-4, "clip": 0.3})
    algorithm, state = setup.program.algorithms["train"], setup.start.server
    like = algorithm.client.template(algorithm.server.broadcast(state, ""))
    nothing = {
        name: Channel({key: torch.zeros(v.shape, dtype=torch.float64)
                       for key, v in one.tree.items()}, "sum")
        for name, one in like.items()
    }  # fmt: skip
    after = algorithm.server.apply(Context(0, "run", 1, 1, tuple("abcde"), 5), state, nothing)
    noise = torch.cat([after["adapter"][name].double().reshape(-1) for name, value in
                       state["adapter"].items() if not value.any()])  # fmt: skip
    # 28 bits and a sign hold a fifth of 32: the grid is the power of 2 on which they hold the clip.
    steps = noise * 5 / 2.0 ** math.ceil(math.log2(0.3 / (2**28 - 1)))
    whole = steps.round()
    assert float((steps - whole).abs().max()) < 0.02
    assert 0.3 < float((whole.abs() % 2).mean()) < 0.7


@pytest.mark.parametrize("rows", [{}, {"unit": "example", "noise_multiplier": 1.0}])
def test_a_cohort_that_is_too_small_is_refused_before_anything_is_loaded(
    rows: dict[str, Any], tmp_path: Path, zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*given: object) -> None:
        raise AssertionError("it is refused before")

    monkeypatch.setattr(preparing, "_prepared", loaded)
    for privacy, words in (
        ({"min_survivors": 50}, "a round asks 5 clients: secure aggregation needs a cohort of 50"),
        ({"corrupt": 0.99}, "and 6 clients to the end; of 5 0 may stop"),
        ({"min_survivors": 5, "dropping": 0.1}, "of 5 clients 1 may stop before the end"),
        ({"secure_aggregation": "ckks", "min_survivors": 6, "corrupt": 0.1, "dropping": 0.1},
         "a round asks 5 clients, and no sum of fewer than 6 is decrypted"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            _setup(tmp_path, zoo, privacy={**privacy, **rows})


@pytest.mark.parametrize("noise", [{}, {"noise_multiplier": 1.0}])
def test_no_score_of_a_single_client_is_written(
    noise: dict[str, Any], tmp_path: Path, zoo: Zoo
) -> None:
    baselines = {"evaluate": {"baselines": ["local"]}}
    _trained(tmp_path, zoo, privacy=noise, **baselines)
    run = tmp_path / "run"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["per_client"] is None
    assert summary["final"] is not None
    for arm in ("federated", "local"):
        own = summary["own"][arm]
        assert (own["worst"], own["worst_decile"]) == (None, None)
        assert own["mean"] is not None
    assert not (run / "clients.jsonl").exists()
    read = read_run(run)
    assert read.summary is not None
    assert gains(read.summary) is None
    assert clients_table(read.summary) is None
    assert verdict(read.summary) is None
    text = " ".join(write_report(run)[1].read_text().split())
    assert "What single clients gained is not written down where sums hide them, so" in text
    assert "No client has a model of its own" not in text


@pytest.mark.parametrize("kind", [True, "ckks"])
def test_noise_alone_is_a_release_and_counts(
    kind: bool | str, tmp_path: Path, zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hiding, "check_quorum", lambda loaded, protection: None)
    monkeypatch.setattr(checks, "check_usual", lambda loaded, population: None)
    section = {"secure_aggregation": kind, "min_survivors": 50, "noise_multiplier": 1.0}
    if kind == "ckks":
        pytest.importorskip("tenseal")
        section |= {"corrupt": 0.1, "dropping": 0.1}
    moved = _trained(tmp_path, zoo, privacy=section)
    assert all(bool((value != 0).any()) for value in moved.values())
    told = verified(tmp_path / "run" / LEDGER)
    assert [line.entry.round for line in told.lines] == [1, 2]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["privacy"]["releases"] == 2
    assert summary["epsilon"] == pytest.approx(get_epsilon_gaussian(2**-0.5, 1e-5))


def test_what_hides_nobody_by_chance_is_said_of_updates_of_those_who_take_part(
    tmp_path: Path, zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four of five would have another number of clients, which a floor of five would show."""
    noise = {"noise_multiplier": 1.0, "clip": 0.3}
    _trained(tmp_path, zoo, privacy=noise)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["privacy"]["adjacency"] == "zero-out"
    ledger = tmp_path / "run" / LEDGER
    assert verified(ledger).spent(1e-5).adjacency == "zero-out"
    show_verified(verified(ledger))
    assert "for whole clients, zero-out." in capsys.readouterr().out


def test_cohorts_that_one_client_could_close_are_refused(tmp_path: Path, zoo: Zoo) -> None:
    private = {"noise_multiplier": 1.0, "clip": 0.3}
    few = {"fraction_train": 0.6}
    with pytest.raises(
        ConfigError, match=r"that adds 0\.\d+ to privacy\.delta, which has room for 1e-08"
    ):
        _setup(tmp_path / "a", zoo, privacy=private, federation=few)
    with pytest.raises(ConfigError, match="a round asks 3 clients: secure aggregation"):
        _setup(tmp_path / "b", zoo, privacy={**private, "min_survivors": 4}, federation=few)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"federation": {"aggregator": "median"}}, "median"),
        ({"federation": {"stages": [{"name": "top_k", "fraction": 0.1}]}}, "leave 'top_k' out"),
        (
            {"federation": {"stages": [{"name": "quantise", "dtype": "int8"}]}},
            "leave 'quantise' out",
        ),
        ({"federation": {"algorithm": "scaffold"}}, "channel 'control' has no range"),
        ({"adapter": {"head": "ridge"}}, r"adapter\.head to train"),
        ({"federation": {"late": "fold"}}, "late is fold"),
    ],
)
def test_what_looks_at_single_updates_is_refused(
    sections: dict[str, Any], words: str, tmp_path: Path, zoo: Zoo
) -> None:
    with pytest.raises((ConfigError, CompositionError), match=words):
        _setup(tmp_path, zoo, **sections)
