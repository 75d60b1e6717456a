"""Runs in worker processes: the same bits as in one process, whoever dies on the way."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import Folder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="workers need pipes to wait for")

METHODS = '''
import os, signal, time
from pathlib import Path
from dataclasses import replace
from atoll.algorithms.fedavg import fedavg
from atoll.core import Algorithm
from atoll.local.bench import Bench

def fragile(bench: Bench, *, folder: str, deadly: bool) -> Algorithm:
    """FedAvg whose worker is killed in round 2, once, and whose client ada ends hers in round 3."""
    plain = fedavg(bench)

    def work(requests):
        for request in requests:
            context, seen = request.context, Path(folder) / "killed"
            print("a user prints")
            if (context.round, context.client) == (2, "cy") and deadly and not seen.exists():
                seen.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if (context.round, context.client) == (3, "ada"):
                if deadly:
                    os._exit(7)
                raise ValueError("a bad day")
            yield from plain.client.work([request])

    return replace(plain, client=replace(plain.client, work=work))

def endless(bench: Bench, *, folder: str) -> Algorithm:
    """Says who works, and never ends."""
    def work(requests):
        (Path(folder) / "working").write_text(f"{os.getpid()} {os.getppid()}")
        time.sleep(3600)
        yield from ()

    plain = fedavg(bench)
    return replace(plain, client=replace(plain.client, work=work))
'''


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Workers have one: another number rounds in another order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def experiment(folder: Folder, name: str, **sections: dict[str, Any]) -> Path:
    """An experiment file of its own folder, over the folder's data."""
    written: dict[str, dict[str, Any]] = {
        "model": {"name_or_path": str(folder.path / "bert"), "pooling": "mean"},
        "data": {"path": str(folder.path / "data"), "max_length": 8},
        "evaluate": {"baselines": []},
    }
    for section, values in sections.items():
        written[section] = {**written.get(section, {}), **values}
    path = folder.path / name / "file.yaml"
    path.parent.mkdir(exist_ok=True)
    (path.parent / "methods.py").write_text(METHODS)
    path.write_text(yaml.safe_dump(written))
    return path


def run(path: Path, *overrides: str) -> tuple[Any, list[str]]:
    """What a run leaves: bytes of its adapter, and its rounds without their seconds; and notes."""
    from atoll.config import load
    from atoll.experiment.setup import prepare
    from atoll.runs.run import run_experiment
    from atoll.runs.where import Observer

    notes: list[str] = []
    number = len(list(path.parent.iterdir()))
    loaded = load(path, overrides=[*overrides, f"output_dir={path.parent / f'run{number}'}"])
    setup = prepare(loaded, note=notes.append)
    output = Path(loaded.experiment.output_dir)
    run_experiment(setup, output, Observer(note=notes.append))
    adapter = {item.name: item.read_bytes() for item in (output / "adapter").glob("*.safetensors")}
    assert adapter
    lines = [json.loads(line) for line in (output / "rounds.jsonl").read_text().splitlines()]
    return (adapter, [{**line, "seconds": None} for line in lines]), notes


def processes(workers: int) -> str:
    return f"federation.runtime={{name: processes, workers: {workers}}}"


def test_workers_end_in_the_bits_of_one_process(folder: Folder) -> None:
    """Client state of two kinds, cohorts, and a head that is solved again in each round."""
    path = experiment(
        folder, "scaffold",
        adapter={"r": 2, "head": "lda", "refit_every": 1},
        train={"per_device_train_batch_size": 4},
        federation={
            "num_rounds": 3, "clients_per_round": 2, "algorithm": "scaffold",
            "stages": [{"name": "top_k", "fraction": 0.3}],
        },
    )  # fmt: skip
    alone, _ = run(path, "train.group_size=1")
    assert len(alone[1]) == 4
    found, notes = run(path, "train.group_size=1", processes(3))
    assert found == alone
    # Where one worker has all clients, its stacks are those of one process.
    stacked, _ = run(path, "train.group_size=2")
    assert run(path, "train.group_size=2", processes(1))[0] == stacked
    assert not any(note.startswith("worker") for note in notes)


def test_a_killed_worker_and_a_client_that_kills_its_worker_cost_the_others_nothing(
    folder: Folder,
) -> None:
    """The module of the algorithm stands beside the file, and nowhere near the run directory."""
    path = experiment(
        folder, "fragile",
        adapter={"r": 2, "head": "train"},
        train={"group_size": 1},
        federation={"num_rounds": 4, "stages": [{"name": "top_k", "fraction": 0.3}]},
    )  # fmt: skip

    def fragile(deadly: bool) -> str:
        return f"federation.algorithm={{name: 'methods:fragile', folder: '{path.parent}', " \
               f"deadly: {str(deadly).lower()}}}"  # fmt: skip

    (adapter, lines), _ = run(path, fragile(False))
    (found, found_lines), notes = run(path, fragile(True), processes(2))
    assert (path.parent / "killed").exists()
    assert found == adapter
    failures = [line.pop("failures") for line in found_lines]
    expected = [line.pop("failures") for line in lines]
    assert found_lines == lines
    assert [list(each) for each in failures] == [list(each) for each in expected]
    assert failures[3]["ada"].startswith("its worker died each time: it ended with status 7 (see ")
    deaths = [note for note in notes if note.startswith("worker ")]
    assert len(deaths) == 3
    assert "was killed by SIGKILL; another is asked again for cy" in deaths[0]
    logs = sorted(path.parent.glob("run*/workers/*.log"))
    assert len(logs) == 2
    assert {line for log in logs for line in log.read_text().splitlines()} == {"a user prints"}


def test_workers_end_with_a_parent_that_is_killed_in_their_work(folder: Folder) -> None:
    path = experiment(
        folder, "endless",
        federation={
            "algorithm": {"name": "methods:endless", "folder": str(folder.path / "endless")},
            "runtime": {"name": "processes", "workers": 1}, "num_rounds": 1,
        },
        train={"group_size": 1},
    )  # fmt: skip
    parent = folder.start("run", str(path))
    working = path.parent / "working"
    deadline = time.monotonic() + 120
    while not (working.exists() and len(working.read_text().split()) == 2):
        assert parent.poll() is None, parent.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    worker, its_parent = map(int, working.read_text().split())
    assert its_parent == parent.pid
    parent.send_signal(signal.SIGKILL)
    parent.communicate(timeout=60)
    while _lives(worker):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (
            "{name: processes, workers: 0}",
            "federation.runtime.workers is 0; expected a whole number of",
        ),
        ("{name: processes, wrokers: 2}", 'unknown argument "wrokers" of processes; did you mean'),
        ("{name: process}", 'unknown runtime "process"; did you mean "processes"'),
        ("{name: inprocess, workers: 2}", 'unknown argument "workers" of inprocess, which takes'),
    ],
)
def test_a_runtime_is_checked_as_other_parts_of_the_file_are(
    folder: Folder, value: str, told: str
) -> None:
    from atoll.config import load
    from atoll.errors import ConfigError
    from atoll.experiment.setup import prepare

    path = experiment(folder, "checked")
    path.write_text(f"{path.read_text()}federation:\n  runtime: {value}\n")
    line = len(path.read_text().splitlines())
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{path}:{line}: {told}')}"):
        prepare(load(path), note=lambda text: None)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    # One whose parent is gone waits for the system's first process to fetch it.
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")
