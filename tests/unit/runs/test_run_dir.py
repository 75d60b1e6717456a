"""The run directory: one run at a time, whose result is kept, and what stands in the way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from atoll.disk.lock import alone
from atoll.errors import RunError
from atoll.experiment.standing import differences, standing
from atoll.runs.run import run_experiment
from atoll.runs.where import Observer
from tests.support.models import Zoo
from tests.support.scenes import scene

QUICK = {"num_rounds": 1, "clients_per_round": 2}


def test_a_run_of_another_experiment_names_the_keys(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text("seed: 0\nfederation: {num_rounds: 3, stages: []}\n")
    found = standing(tmp_path, "seed: 0\nfederation: {num_rounds: 2, stages: []}\n")
    assert (found.state, found.changes) == ("other", "federation.num_rounds: 3 -> 2")


def test_differences_of_keys_that_only_one_has() -> None:
    before, after = "a: {b: 1, c: [x]}\nd: null\n", "a: {c: [y]}\nd: {e: 1}\n"
    assert differences(before, after) == 'a.b: 1 -> null, a.c: ["x"] -> ["y"], d.e: null -> 1'
    many = "".join(f"k{i}: 1\n" for i in range(8))
    assert differences(many, "k0: 1").endswith("k5: 1 -> null and 2 more")


def test_a_finished_run_without_its_record(tmp_path: Path) -> None:
    for name in ("experiment.yaml", "summary.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(RunError, match=r"run\.json is missing, .*remove .*/summary\.json, and"):
        standing(tmp_path, "{}")


@pytest.mark.parametrize("content", [b"x: [", b"\x85\xff", b"x: \x00"])
def test_a_damaged_experiment_in_a_run(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_bytes(content)
    with pytest.raises(RunError, match=r"experiment.yaml is damaged \(.*\); put it back, or"):
        standing(tmp_path, "seed: 0\n")


def test_a_place_below_a_file_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/a/b, but .*/file is a file; set output_dir"):
        standing(tmp_path / "file" / "a" / "b", "")
    assert standing(tmp_path / "new" / "b", "").state == "new"


HOLD = """
import sys
from pathlib import Path
from atoll.disk.lock import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_do_not_share_a_directory(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stdout
    assert other.stdout.readline() == "held\n"
    (tmp_path / "experiment.yaml").write_text("seed: 0\n")
    says = "another `atoll run` is writing into"
    with pytest.raises(RunError, match=says), alone(tmp_path):
        pass
    with pytest.raises(RunError, match=says):
        standing(tmp_path, "seed: 0\n")
    other.kill()  # The system lets go of what a dead process held.
    other.communicate()
    with alone(tmp_path):
        assert list(tmp_path.iterdir()) == [tmp_path / "experiment.yaml"]


def test_the_adapter_is_there_when_the_baselines_are_stopped(tmp_path: Path, zoo: Zoo) -> None:
    setup = scene(tmp_path, zoo, model={"pooling": "mean"}, federation=QUICK)

    def stopped(what: str, done: int, total: int) -> None:
        if what == "local":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_experiment(setup, tmp_path / "run", Observer(step=stopped))
    adapter = tmp_path / "run" / "adapter"
    assert load_file(adapter / "adapter_model.safetensors")
    assert "| accuracy | not measured |" in (adapter / "README.md").read_text()
    assert not (tmp_path / "run" / "summary.json").exists()
    notes: list[str] = []
    summary = run_experiment(setup, tmp_path / "run", Observer(note=notes.append))
    assert notes == [f"going on after round 1 in {tmp_path / 'run'}"]
    assert f"| accuracy | {summary['final']:.4f} |" in (adapter / "README.md").read_text()
    assert len((tmp_path / "run" / "rounds.jsonl").read_text().splitlines()) == 2


def _rows(*labels: str) -> list[dict[str, str]]:
    return [{"text": f"wave {label}", "label": label} for label in labels]


def _clients(folder: Path, **clients: list[dict[str, str]]) -> None:
    for name, rows in clients.items():
        (folder / "data" / name).mkdir(parents=True)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "data" / name / "train.jsonl").write_text(text)


def test_a_client_may_have_any_name(tmp_path: Path, zoo: Zoo) -> None:
    _clients(tmp_path, **{"*": _rows(*"abab"), "bob": _rows(*"abab")})
    (tmp_path / "data" / "test.jsonl").write_text(json.dumps(_rows("a")[0]) + "\n")
    setup = scene(tmp_path, zoo, model={"pooling": "mean"}, federation=QUICK)
    assert len(setup.common_test() or ()) == 1
    assert [len(setup.bench.examples("*", split)) for split in ("train", "test")] == [3, 1]
    summary = run_experiment(setup, tmp_path / "run", Observer())
    assert set(summary["per_client"]) == {"*", "bob"}


def test_nothing_held_out_is_nothing_measured(tmp_path: Path, zoo: Zoo) -> None:
    _clients(tmp_path, ada=_rows(*"abab"), bob=_rows(*"abab"))
    setup = scene(tmp_path, zoo, model={"pooling": "mean"}, federation=QUICK, data={"holdout": 0.0})
    heard: list[Any] = []
    summary = run_experiment(setup, tmp_path / "run", Observer(round=heard.append))
    assert summary["final"] is None
    assert summary["baselines"] == {"local": None, "pooled": None}
    assert {line.metric for line in heard} == {None}
    json.dumps(summary, allow_nan=False)


def test_a_client_that_fails_alone_is_named(tmp_path: Path, zoo: Zoo) -> None:
    # One step of this size is still finite, and only ada takes a second one.
    _clients(tmp_path, ada=_rows(*"abababababab"), bob=_rows(*"abab"))
    setup = scene(
        tmp_path, zoo, model={"pooling": "mean"}, adapter={"head": "train"}, federation=QUICK,
        train={"optimizer": "sgd", "learning_rate": 3e38}, evaluate={"baselines": ["local"]},
    )  # fmt: skip
    notes: list[str] = []
    run_experiment(setup, tmp_path / "run", Observer(note=notes.append))
    assert "baseline local: ada left out of its mean, because they could not train" in notes
