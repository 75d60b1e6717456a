"""Trackers, by the real libraries: what they hold afterwards is what the run had."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from atoll.config import Loaded, load
from atoll.errors import ConfigError
from atoll.experiment.trackers import check_trackers, tracking

SECRET = "st-marys-hospital"
SUMMARY = {
    "metric": "recall@5",
    "final": 0.75,
    "best_round": None,
    "higher_is_better": True,
    "intervals": {"federated": (0.5, 0.875), "federated_minus_local": None},
    "own": {"federated": {"mean": 0.7, "worst": None}, "local": None},
    "per_client": {SECRET: {"train": 5, "federated": 0.5}},
    "skipped_clients": [SECRET],
}


def _loaded(folder: Path, report_to: str) -> Loaded:
    (folder / "run").mkdir(exist_ok=True)
    path = folder / "e.yaml"
    path.write_text(
        f"model: {{name_or_path: m}}\ndata: {{path: d}}\nseed: 41\nreport_to: {report_to}\n"
    )
    return load(path)


def _line(round_: int) -> dict[str, Any]:
    return {
        "round": round_,
        "loss": 1 / (round_ + 1),
        "recall@5": None if round_ == 1 else 0.1 * round_,
        "own": float("nan"),
        "bytes_up": 100 * round_,
        "failures": {SECRET: "no answer"} if round_ == 2 else {},
        "seconds": 1.5,
        "epsilon": None,
    }


class Stopped(Exception):
    pass


def _stopped_and_resumed(loaded: Loaded, folder: Path, notes: list[str]) -> None:
    """Rounds 0 to 3, a crash, and from the checkpoint of round 1 on: rounds 2 to 4."""
    with suppress(Stopped), tracking(loaded.experiment, folder, note=notes.append) as first:
        for round_ in range(4):
            first.log_round(_line(round_))
        raise Stopped
    with tracking(loaded.experiment, folder, note=notes.append, first_round=2) as second:
        for round_ in range(2, 5):
            second.log_round(_line(round_))
        second.finish(SUMMARY)


def _identity(folder: Path, name: str) -> Mapping[str, str]:
    found: Mapping[str, str] = json.loads((folder / "tracker.json").read_text())[name]
    return found


def _no_client_is_named(folder: Path) -> None:
    for path in folder.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()


def test_tensorboard_holds_every_round_once_and_the_summary(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    notes: list[str] = []
    run = tmp_path / "run"
    _stopped_and_resumed(_loaded(tmp_path, "tensorboard"), run, notes)
    assert notes == [f"report_to: tensorboard: tensorboard --logdir {run}/tensorboard"] * 2
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    losses = [(event.step, event.value) for event in events.Scalars("loss")]
    assert losses == [(n, pytest.approx(1 / (n + 1))) for n in range(5)]
    assert [event.step for event in events.Scalars("recall@5")] == [0, 2, 3, 4]
    assert [event.value for event in events.Scalars("failures")] == [0, 0, 1, 0, 0]
    tags = set(events.Tags()["scalars"])
    assert tags == {
        "loss", "recall@5", "bytes_up", "failures", "seconds",
        "summary/final", "summary/own/federated/mean", "summary/intervals/federated/low",
        "summary/intervals/federated/high",
    }  # fmt: skip
    (final,) = events.Scalars("summary/final")
    assert (final.step, final.value) == (4, 0.75)
    (text,) = events.Tensors("experiment/text_summary")
    assert b"seed: 41" in text.tensor_proto.string_val[0]
    _no_client_is_named(tmp_path)


def test_a_run_that_begins_anew_drops_what_trackers_called_it_before(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tracker.json").write_text('{"wandb": {"id": "old"}}')
    loaded = _loaded(tmp_path, "[tensorboard]")
    with tracking(loaded.experiment, tmp_path / "run", note=lambda text: None):
        pass
    held = json.loads((tmp_path / "run" / "tracker.json").read_text())
    assert held == {"tensorboard": {"folder": "tensorboard"}}


@pytest.mark.parametrize("held", ["{", "[]", '{"tensorboard": 3}'])
def test_a_damaged_record_is_no_reason_not_to_go_on(tmp_path: Path, held: str) -> None:
    loaded = _loaded(tmp_path, "tensorboard")
    (tmp_path / "run" / "tracker.json").write_text(held)
    with tracking(loaded.experiment, tmp_path / "run", note=lambda text: None, first_round=3) as to:
        to.log_round(_line(3))
    assert _identity(tmp_path / "run", "tensorboard") == {"folder": "tensorboard"}


def test_no_tracker_leaves_no_file(tmp_path: Path) -> None:
    loaded = _loaded(tmp_path, "none")
    check_trackers(loaded)
    with tracking(loaded.experiment, tmp_path / "run", note=lambda text: None) as to:
        to.log_round(_line(0))
        to.finish(SUMMARY)
    assert list((tmp_path / "run").iterdir()) == []


FULL_DISK = """
import resource, sys
from pathlib import Path
from atoll.config import load
from atoll.experiment.trackers import tracking

loaded = load(sys.argv[1])
with tracking(loaded.experiment, Path(sys.argv[2]), note=print) as to:
    to.log_round({"round": 0, "loss": 1.0})
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    for round_ in range(1, 60):
        to.log_round({"round": round_, "loss": 1.0})
    to.finish({"final": 1.0})
print("the run went on")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files")
def test_a_tracker_that_fails_in_the_middle_is_one_note(tmp_path: Path) -> None:
    _loaded(tmp_path, "tensorboard")
    words = [sys.executable, "-c", FULL_DISK, str(tmp_path / "e.yaml"), str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    where, failed, went_on = done.stdout.splitlines()
    assert where.startswith("report_to: tensorboard: tensorboard --logdir ")
    assert failed.startswith("report_to: tensorboard failed and hears no more of this run: OSError")
    assert went_on == "the run went on"


def test_a_tracker_that_cannot_be_opened_stops_only_a_run_that_begins(tmp_path: Path) -> None:
    loaded = _loaded(tmp_path, "tensorboard")
    (tmp_path / "run" / "tensorboard").write_text("a file in the way")
    says = r"report_to: tensorboard could not be opened: .*set report_to: none to train without"
    with (
        pytest.raises(ConfigError, match=says),
        tracking(loaded.experiment, tmp_path / "run", note=lambda text: None),
    ):
        pass
    notes: list[str] = []
    with tracking(loaded.experiment, tmp_path / "run", note=notes.append, first_round=1) as to:
        to.log_round(_line(1))
    (note,) = notes
    assert note.startswith("report_to: tensorboard could not be opened: ")
    assert note.endswith("; the run goes on without it")


WITHOUT = """
import sys
from atoll.config import load
from atoll.errors import ConfigError
from atoll.experiment.trackers import check_trackers

# As where it is not installed: the finders are asked first, and have no such library.
sys.path[:] = [place for place in sys.path if "site-packages" not in place]
try:
    check_trackers(load(sys.argv[1]))
except ConfigError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_library_that_is_missing_is_named_with_its_extra(tmp_path: Path, name: str) -> None:
    _loaded(tmp_path, f"[{name}]")
    # What wandb leaves behind where it ran is no library.
    (tmp_path / name).mkdir()
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path / "e.yaml")],
        cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert done.stdout.strip() == (
        f"{tmp_path}/e.yaml:4: report_to is {name}, which is not installed; "
        f"run: pip install 'atoll[{name}]', or set report_to: none"
    )


def _absent(name: str) -> bool:
    return importlib.util.find_spec(name) is None


@pytest.mark.skipif(_absent("mlflow"), reason="mlflow is an extra of its own")
@pytest.mark.filterwarnings("ignore")
def test_mlflow_holds_every_round_once_and_the_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    from mlflow import MlflowClient

    notes: list[str] = []
    run = tmp_path / "run"
    _stopped_and_resumed(_loaded(tmp_path, "mlflow"), run, notes)
    assert notes == []
    client = MlflowClient()
    number = _identity(run, "mlflow")["run_id"]
    losses = client.get_metric_history(number, "loss")
    assert [(one.step, one.value) for one in losses] == [(n, 1 / (n + 1)) for n in range(5)]
    found = client.get_run(number)
    assert found.info.status == "FINISHED"
    assert found.data.params["seed"] == "41"
    assert found.data.metrics["recall_5"] == pytest.approx(0.4)
    assert found.data.metrics["summary/own/federated/mean"] == 0.7
    _no_client_is_named(tmp_path)
    client.delete_run(number)
    loaded = _loaded(tmp_path, "mlflow")
    with tracking(loaded.experiment, run, note=notes.append, first_round=5) as to:
        to.log_round(_line(5))
    (note,) = notes
    assert note.startswith("report_to: mlflow ")


def _log_records(data: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format, which is wandb's after a header of 7 bytes.

    Chunks of a checksum (4), a length (2), a kind (1: whole; 2, 3, 4: first, middle, last) and the
    content, none of which crosses a block of 32 KiB.
    """
    place, whole = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


@pytest.mark.skipif(_absent("wandb"), reason="wandb is an extra of its own")
@pytest.mark.filterwarnings("ignore")
def test_wandb_keeps_the_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    import wandb
    from wandb.proto import wandb_internal_pb2 as records

    notes: list[str] = []
    run = tmp_path / "run"
    _stopped_and_resumed(_loaded(tmp_path, "wandb"), run, notes)
    wandb.teardown()  # As at the end of the process: its own process has then written all.
    assert [note.partition(" /")[0] for note in notes] == ["report_to: wandb: wandb sync"] * 2
    name = _identity(run, "wandb")["id"]
    first, second = sorted((run / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))
    steps, held = [], set[str]()
    for path in (first, second):
        for data in _log_records(path.read_bytes()):
            record = records.Record()
            record.ParseFromString(data)
            for item in record.history.item:
                if "loss" in (item.key, *item.nested_key):
                    steps.append((record.history.step.num, json.loads(item.value_json)))
            held |= {item.key for item in record.run.config.update}
            held |= {key for item in record.summary.update for key in (item.key, *item.nested_key)}
    assert steps == [(n, 1 / (n + 1)) for n in (0, 1, 2, 3, 2, 3, 4)]
    assert {"seed", "federation", "summary/final"} <= held
    _no_client_is_named(tmp_path)
