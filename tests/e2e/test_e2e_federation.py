"""A federation across machines from the command line: the bits of `atoll run`, whoever dies."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.federation import labelled_rows
from tests.support.models import Zoo
from tests.support.scenes import write_clients
from tests.support.sites import ATOLL, Started, federation, waited

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes")
CLIENTS = ("ada", "bob", "cy")
CLOCKS = {"seconds"}


def write_experiment(folder: Path, zoo: Zoo, rounds: int, **federation: Any) -> Path:
    """Client states of an algorithm and of a stage, steps on the way down; nobody has all rows."""
    write_clients(folder / "data", labelled_rows({"ada": 9, "bob": 6, "cy": 11}))
    written = {
        "model": {"name_or_path": zoo("bert"), "pooling": "mean"},
        "data": {"path": "data", "max_length": 24},
        "adapter": {"r": 2, "target_modules": ["query"]},
        "train": {"per_device_train_batch_size": 4, "device": "cpu", "group_size": 1,
                  "max_steps": 2},
        "federation": {"num_rounds": rounds, "algorithm": "scaffold",
                       "stages": [{"name": "top_k", "fraction": 0.3}],
                       "broadcast_stages": [{"name": "quantise", "dtype": "int8"}], **federation},
        "evaluate": {"baselines": []},
        "output_dir": "runs/there",
    }  # fmt: skip
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(written))
    return path


def rounds_of(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCKS} for line in lines]


def adapter_of(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "adapter").glob("*.safetensors")}


def round_is_over(server: Started, number: int) -> None:
    waited(lambda: f"\nround {number}/" in server.said or server.process.poll() is not None)
    assert server.process.poll() is None, server.said


def test_the_bits_of_a_simulation_through_every_death(zoo: Zoo, tmp_path: Path) -> None:
    """A client, the SuperLink and the server are killed, and a site is cut off for a while."""
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    draw = random.Random(seed)
    write_experiment(tmp_path, zoo, 3, min_clients=3)
    with federation(tmp_path, CLIENTS) as people:
        server = people.coordinate("experiment.yaml")
        for client in CLIENTS:
            people.join(client)
        here = subprocess.Popen(
            [ATOLL, "run", "experiment.yaml", "output_dir=runs/here"], cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        round_is_over(server, 0)
        time.sleep(draw.uniform(0, 3))
        people.sites["ada"].kill()
        people.sites["ada"].again()
        server.part("atoll.flower.link").kill()
        round_is_over(server, 1)
        time.sleep(draw.uniform(0, 3))
        server.kill()
        cut = people.sites["bob"].part("atoll.flower.supernode")
        cut.send_signal(signal.SIGSTOP)
        server.again()
        round_is_over(server, 1)
        time.sleep(draw.uniform(3, 6))
        cut.send_signal(signal.SIGCONT)
        assert server.process.wait(120) == 0, server.said
        for site in people.sites.values():
            assert site.process.poll() is None
    assert here.wait(120) == 0
    told, simulated = rounds_of(tmp_path / "runs/there"), rounds_of(tmp_path / "runs/here")
    assert [line["round"] for line in told] == [0, 1, 2, 3]
    for line, like in zip(told, simulated, strict=True):
        # Who begins anew cannot take a step, and is sent the whole adapter.
        assert line.pop("bytes_down") >= like.pop("bytes_down")
    assert told == simulated
    bits = adapter_of(tmp_path / "runs/there")
    assert bits.keys() == {"adapter_model.safetensors", "head.safetensors"}
    assert bits == adapter_of(tmp_path / "runs/here")
    assert "Traceback" not in server.said
