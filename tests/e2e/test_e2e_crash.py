"""kill -9 at any instant, the same command again, and the same bits in the end."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.federation import labelled_rows
from tests.support.models import Zoo
from tests.support.scenes import write_clients

CRASH = Path(__file__).parents[1] / "support" / "crash.py"
TIMES = {"seconds", "command", "resumed", "id"}


def _experiment(folder: Path, zoo: Zoo) -> Path:
    """Client states of an algorithm and of a stage, a solved head that is refitted, baselines."""
    write_clients(folder / "data", labelled_rows())
    written = {
        "model": {"name_or_path": zoo("bert"), "pooling": "mean"},
        "data": {"path": str(folder / "data"), "max_length": 24},
        "adapter": {"r": 2, "target_modules": ["query"], "head": "lda", "refit_every": 2,
                    "lora_dropout": 0.1},
        "train": {"per_device_train_batch_size": 4, "device": "cpu", "lr_scheduler_type": "linear"},
        "federation": {"num_rounds": 4, "clients_per_round": 3, "algorithm": "scaffold",
                       "stages": [{"name": "top_k", "fraction": 0.3}]},
        "evaluate": {"load_best": True},
    }  # fmt: skip
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(written))
    return path


def _crash(experiment: Path, output: Path, plan: list[float | str]) -> list[int]:
    found = subprocess.run(
        [sys.executable, str(CRASH), str(experiment), str(output), json.dumps(plan)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CRASH.parents[2])},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    codes: list[int] = json.loads(found.stdout.splitlines()[-1])
    assert codes[-1] == 0, found.stderr
    return codes


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(item) for key, item in value.items() if key not in TIMES}
    return value


def _left(output: Path) -> dict[str, Any]:
    """Every file of a run directory, without what clocks and the command say."""
    found: dict[str, Any] = {}
    for path in sorted(output.rglob("*")):
        name = str(path.relative_to(output))
        if path.is_dir():
            continue
        if path.suffix == ".json":
            found[name] = _without_times(json.loads(path.read_text()))
        elif path.suffix == ".jsonl":
            lines = path.read_text().splitlines()
            found[name] = [_without_times(json.loads(line)) for line in lines]
        elif path.suffix in (".safetensors", ".md"):
            found[name] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, zoo: Zoo) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("straight")
    experiment = _experiment(folder, zoo)
    assert _crash(experiment, folder / "run", []) == [0]
    found = _left(folder / "run")
    assert len(found["rounds.jsonl"]) == 5
    assert any(name.startswith("client_state/") for name in found)
    return experiment, found


def _same_end(straight: tuple[Path, dict[str, Any]], output: Path, plan: list[Any]) -> list[int]:
    experiment, expected = straight
    codes = _crash(experiment, output, plan)
    found = _left(output)
    assert found.keys() == expected.keys()
    for name, content in expected.items():
        assert found[name] == content, name
    return codes


def test_three_kills(straight: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    draw = random.Random(int.from_bytes(os.urandom(4)))
    plan = [draw.uniform(0.2, 4.0), f"fsync:{draw.randint(4, 20)}", draw.uniform(0.5, 4.0)]
    print(f"killed at {plan}")
    _same_end(straight, tmp_path / "run", plan)


def test_kills_inside_the_writing_of_checkpoints(
    straight: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Before there is a file, between the two of a checkpoint, before it gets its name, and in the
    writing of the model card and of the report; each in another round."""
    plan = ["fsync:1", "fsync:6", "fsync:7", "replace:6", "rmdir:1", "replace:20"]
    codes = _same_end(straight, tmp_path / "run", plan)
    assert codes[:5] == [-9] * 5
    assert not list((tmp_path / "run").rglob(".*"))


@pytest.mark.long
def test_fifty_kills(straight: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    draw = random.Random(int.from_bytes(os.urandom(4)))
    killed = 0
    while killed < 50:
        plan: list[Any] = [draw.uniform(0.1, 6.0) for _ in range(5)]
        plan += [f"{draw.choice(['fsync', 'replace', 'mkdir'])}:{draw.randint(1, 12)}"
                 for _ in range(5)]  # fmt: skip
        print(f"killed at {plan}")
        output = tmp_path / f"run{killed}"
        killed += _same_end(straight, output, plan).count(-9)
