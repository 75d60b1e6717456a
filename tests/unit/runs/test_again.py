"""A round of secure sums that a crash undid: it is released again to the same bits, and once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from atoll.experiment.setup import Setup
from atoll.ledger import verified
from atoll.runs import run as run_module
from atoll.runs.account import LEDGER
from atoll.runs.run import federated, run_experiment
from atoll.runs.where import Observer
from tests.support.models import Zoo
from tests.support.scenes import scene

SECURE = {"secure_aggregation": True, "min_survivors": 3, "corrupt": 0.0, "dropping": 0.0}
SECTIONS: dict[str, Mapping[str, Any]] = {
    "model": {"pooling": "mean"},
    "adapter": {"r": 2, "target_modules": ["query"], "head": "train"},
    "federation": {"num_rounds": 2},
    "evaluate": {"baselines": []},
}
KINDS: dict[str, Mapping[str, Any]] = {
    "central": {"noise_multiplier": 1.0, "clip": 0.5},
    "distributed": {"mechanism": "distributed", "noise_multiplier": 1.0, "clip": 0.5},
    "skellam": {
        "mechanism": "distributed", "noise": "skellam", "noise_multiplier": 1.0, "clip": 0.5,
    },
    "rows": {"unit": "example", "noise_multiplier": 1.0, "clip": 0.5},
}  # fmt: skip


def _setup(folder: Path, zoo: Zoo, kind: str) -> Setup:
    return scene(folder, zoo, **SECTIONS, privacy={**SECURE, **KINDS[kind]})


def _state(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "round-2" / "server.safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_a_sum_that_a_crash_undid_is_the_same_sum_again(
    kind: str, tmp_path: Path, zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, copies = tmp_path / "run", [tmp_path / "one", tmp_path / "two"]
    for line in federated(_setup(tmp_path, zoo, kind), run, Observer()):
        if line.round == 1:
            break
    with monkeypatch.context() as patch:

        def killed(*arguments: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(run_module, "save_round", killed)
        with pytest.raises(KeyboardInterrupt):
            run_experiment(_setup(tmp_path, zoo, kind), run, Observer())
    lost = json.loads((run / "rounds.jsonl").read_text().splitlines()[-1])
    assert lost["round"] == 2
    for copy in copies:
        shutil.copytree(run, copy)
        summary = run_experiment(_setup(tmp_path, zoo, kind), copy, Observer())
        steps = sum(one.steps for _, one in verified(copy / LEDGER).releases)
        assert summary["privacy"]["releases"] == steps
        assert len(verified(copy / LEDGER).releases) == 2
    one, two = (_state(copy) for copy in copies)
    assert all(torch.equal(one[name], two[name]) for name in one)
    told = [json.loads((c / "rounds.jsonl").read_text().splitlines()[-1]) for c in copies]
    assert lost["accuracy"] == told[0]["accuracy"] == told[1]["accuracy"]


@pytest.mark.parametrize("kind", ["central", "distributed"])
def test_two_runs_of_one_file_share_no_noise(kind: str, tmp_path: Path, zoo: Zoo) -> None:
    for name in ("one", "two"):
        run_experiment(_setup(tmp_path, zoo, kind), tmp_path / name, Observer())
    one, two = (_state(tmp_path / name) for name in ("one", "two"))
    trained = [name for name in one if one[name].is_floating_point() and bool(one[name].any())]
    apart = torch.cat([(one[name] - two[name]).flatten() for name in trained])
    assert float((apart != 0).double().mean()) > 0.9
