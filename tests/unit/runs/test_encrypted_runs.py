"""Runs with encrypted sums: the numbers of a plain run, in process and in processes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from atoll.ckks import Silo
from atoll.errors import CompositionError, ConfigError, ProtocolError, QuorumError
from atoll.experiment.setup import Setup
from atoll.plan.asked import asked
from atoll.plan.traffic import traffic
from atoll.report import facts
from atoll.report.read import read_run
from atoll.runs.run import run_experiment
from atoll.runs.where import Observer
from tests.support.models import Zoo
from tests.support.scenes import scene

pytest.importorskip("tenseal")

SECTIONS: dict[str, Mapping[str, Any]] = {
    "model": {"pooling": "mean"},
    "adapter": {"r": 2, "target_modules": ["query"], "head": "train"},
    "train": {"optimizer": "sgd", "learning_rate": 0.1},
    "federation": {"num_rounds": 2, "stages": [{"name": "uniform"}]},
    "evaluate": {"baselines": []},
}
GROUPED = {"name": "grouped", "size": 2, "rule": "median"}
ENCRYPTED = {"secure_aggregation": "ckks", "min_survivors": 2}


def _setup(folder: Path, zoo: Zoo, **sections: Mapping[str, Any]) -> Setup:
    both = {name: {**SECTIONS.get(name, {}), **sections.get(name, {})} for name in
            {**SECTIONS, **sections}}  # fmt: skip
    return scene(folder, zoo, **both)


def _trained(folder: Path, zoo: Zoo, **sections: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    run_experiment(_setup(folder, zoo, **sections), folder / "run", Observer())
    return load_file(folder / "run" / "adapter" / "adapter_model.safetensors")


def _gap(one: Mapping[str, torch.Tensor], two: Mapping[str, torch.Tensor]) -> float:
    return max(float((one[name] - two[name]).abs().max()) for name in one)


@pytest.mark.parametrize(
    "runtime", ["inprocess", pytest.param("processes", marks=pytest.mark.long)]
)
def test_an_encrypted_run_is_the_plain_one_to_a_rounding(
    runtime: str, tmp_path: Path, zoo: Zoo
) -> None:
    plain = _trained(tmp_path / "a", zoo)
    encrypted = _trained(
        tmp_path / "b", zoo, privacy=ENCRYPTED, federation={"runtime": runtime}
    )  # fmt: skip
    assert 0 < _gap(plain, encrypted) < 1e-4
    assert any(bool((plain[name] != 0).any()) for name in plain)
    said = facts.privacy(read_run(tmp_path / "b" / "run"))
    assert "a key that ada held" in said
    assert "ada and the server together could read each update, any other client" in said


@pytest.mark.parametrize("least", [4, 5])
def test_no_sum_is_opened_of_fewer_than_a_round_needs(
    least: int, tmp_path: Path, zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Silo.answer

    def silent(self: Silo, *told: Any) -> bytes:
        if self.name == "cy":
            raise ProtocolError("its ciphertexts are gone")
        return answer(self, *told)

    monkeypatch.setattr(Silo, "answer", silent)
    setup = _setup(tmp_path, zoo, privacy=ENCRYPTED, federation={"min_clients": least})
    if least == 4:
        run_experiment(setup, tmp_path / "run", Observer())
        return
    with pytest.raises(QuorumError, match=r"no sum of fewer than 5 .*federation\.min_clients"):
        run_experiment(setup, tmp_path / "run", Observer())


@pytest.mark.long
def test_encrypted_sums_beside_central_noise(tmp_path: Path, zoo: Zoo) -> None:
    noised = {"noise_multiplier": 2e-5, "clip": 0.5, "sampling": "everyone"}
    masked = {**noised, "secure_aggregation": True, "min_survivors": 2, "corrupt": 0.0,
              "dropping": 0.0}  # fmt: skip
    told: dict[str, Any] = {"federation": {"stages": []}, "train": {"learning_rate": 10.0}}
    one = _trained(tmp_path / "a", zoo, **told, privacy=masked)
    two = _trained(tmp_path / "b", zoo, **told, privacy={**noised, **ENCRYPTED})
    assert 0 < _gap(one, two) < 1e-4
    assert max(float(one[name].abs().max()) for name in one if "lora_B" in name) > 1e-3


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"privacy": {**ENCRYPTED, "key_holder": "nobody"}}, "no client of this federation"),
        ({"privacy": {**ENCRYPTED, "mechanism": "distributed", "epsilon": 8}}, "whole numbers"),
        ({"privacy": {**ENCRYPTED, "corrupt": 0.2}}, "remove privacy.corrupt"),
        ({"privacy": {"secure_aggregation": True, "key_holder": "a"}}, "nobody holds a key"),
        ({"privacy": {"key_holder": "a"}}, "key_holder"),
        ({"privacy": ENCRYPTED, "adapter": {"head": "ridge"}}, "adapter.head"),
        ({"privacy": ENCRYPTED, "federation": {"aggregator": {"name": "median"}}},
         "stage 'ckks' hides: .* use a mean$"),
        ({"privacy": ENCRYPTED, "federation": {"aggregator": GROUPED, "min_clients": 2}}, "ckks"),
        ({"privacy": ENCRYPTED, "federation": {"stages": [{"name": "top_k", "fraction": 0.1}]}},
         "ckks"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_it_is_refused(
    sections: dict[str, Any], why: str, tmp_path: Path, zoo: Zoo
) -> None:
    with pytest.raises((ConfigError, CompositionError), match=why):
        _setup(tmp_path, zoo, **sections)


def test_a_plan_tells_what_ciphertexts_take(tmp_path: Path, zoo: Zoo) -> None:
    setup = _setup(tmp_path, zoo, privacy=ENCRYPTED)
    (round_one,) = [one for one in traffic(setup, asked(setup)) if one.asked.context.round == 1
                    and one.asked.kind == "round"]  # fmt: skip
    values = sum(value.numel() for part in ("adapter", "head")
                 for value in setup.start.server[part].values())  # fmt: skip
    ciphertexts = -(-(values + 3) // 2048)
    cohort = len(round_one.asked.context.cohort)
    assert round_one.bytes_up > cohort * (ciphertexts * 8192 * 7 + 96)
    run_experiment(setup, tmp_path / "run", Observer())
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()
    ]
    planned = [one for one in traffic(setup, asked(setup)) if one.asked.context.round == 1]
    assert lines[1]["bytes_up"] == sum(one.bytes_up for one in planned)
    # Keys are compressed, each to another length.
    assert abs(lines[1]["bytes_down"] - sum(one.bytes_down for one in planned)) < 100 * cohort * 2
