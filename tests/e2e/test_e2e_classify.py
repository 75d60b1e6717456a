"""A classifier from the first command to predictions, as a user types it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

SUMMARY = [
    "task", "metric", "final", "baselines", "own", "per_client", "num_rounds", "exchanges",
    "bytes_up", "bytes_down", "seconds", "trainable_parameters", "skipped_clients", "epsilon",
    "delta",
]  # fmt: skip
ROUND = [
    "round", "loss", "accuracy", "own", "bytes_up", "bytes_down", "exchanges", "clients",
    "failures", "seconds", "epsilon",
]  # fmt: skip


@pytest.fixture(scope="module")
def first(folder: Any) -> subprocess.CompletedProcess[str]:
    """The run that the other tests look at."""
    found: subprocess.CompletedProcess[str] = folder.run("run", "labels.yaml")
    assert found.returncode == 0, found.stderr
    return found


def test_the_run_directory_is_complete(folder: Any, first: object) -> None:
    assert folder.names("runs/labels") == {
        "experiment.yaml", "run.json", "rounds.jsonl", "clients.jsonl", "summary.json", "adapter",
        "checkpoints", "report.html",
    }  # fmt: skip
    assert folder.names("runs/labels/adapter") == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "atoll.json",
        "head.safetensors",
    }  # fmt: skip
    summary = folder.json("runs/labels/summary.json")
    assert set(SUMMARY) <= summary.keys()
    assert summary["metric"] == "accuracy"
    assert set(summary["baselines"]) == {"local", "pooled"}
    assert set(summary["own"]) == {"federated", "local", "pooled"}
    for own in summary["own"].values():
        assert set(own) == {"mean", "worst", "worst_decile", "spread"}
    assert set(summary["per_client"]) == {"ada", "bob", "cy"}
    rounds = folder.lines("runs/labels/rounds.jsonl")
    assert [line["round"] for line in rounds] == [0, 1]
    assert all(set(ROUND) <= line.keys() for line in rounds)
    assert sum(line["bytes_up"] for line in rounds) == summary["bytes_up"] > 0
    assert len(folder.lines("runs/labels/clients.jsonl")) == 3
    assert folder.json("runs/labels/run.json")["threads"] == 1


def test_the_end_of_a_run_tells_the_result(folder: Any, first: Any) -> None:
    summary = folder.json("runs/labels/summary.json")
    lines = first.stdout.splitlines()
    titles = "accuracy common test set own rows: mean worst client worst 10% spread"
    assert " ".join(lines[0].split()) == titles
    names = ("federated", "local only", "pooled")
    values = (summary["final"], summary["baselines"]["local"], summary["baselines"]["pooled"])
    for line, name, value in zip(lines[2:5], names, values, strict=True):
        assert line.startswith(f"{name} ")
        assert line.removeprefix(name).split()[0] == f"{value:.3f}"
    assert lines[6].startswith(("Federating helped: ", "Federating did", "Federating was a draw: "))
    assert lines[-5:] == [
        "Next:", "  atoll eval runs/labels", '  atoll predict runs/labels --text "..."',
        "  atoll export runs/labels --merge --output merged", "  atoll recipes",
    ]  # fmt: skip


def test_progress_is_plain_lines_and_no_library_speaks(first: Any) -> None:
    lines = [line for line in first.stderr.splitlines() if "without a gradient" not in line]
    starts = (
        "3 clients with ", "round 0/1  accuracy ", "round 1/1  loss ", "baseline: local",
        "baseline: pooled",
    )  # fmt: skip
    assert len(lines) == len(starts)
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(start)
    assert "\x1b" not in first.stderr + first.stdout


def test_a_finished_run_started_again_shows_its_result(folder: Any, first: Any) -> None:
    before = (folder.path / "runs/labels/summary.json").stat().st_mtime_ns
    again = folder.run("run", "labels.yaml")
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert again.stderr == (
        "This run is finished; its result stands in runs/labels. Set output_dir to run it anew, or "
        "a larger federation.num_rounds to go on.\n"
    )
    assert (folder.path / "runs/labels/summary.json").stat().st_mtime_ns == before


def test_eval_gives_the_numbers_of_the_run(folder: Any, first: Any) -> None:
    found = folder.run("eval", "runs/labels", "--format", "json")
    assert found.returncode == 0, found.stderr
    document, summary = json.loads(found.stdout), folder.json("runs/labels/summary.json")
    assert document["final"] == pytest.approx(summary["final"], abs=1e-6)
    assert document["own"]["federated"] == pytest.approx(summary["own"]["federated"], abs=1e-6)
    assert found.stderr == ""


def test_eval_on_a_file_of_rows(folder: Any, first: Any) -> None:
    found = folder.run("eval", "runs/labels", "--data", "data/test.jsonl")
    final = folder.json("runs/labels/summary.json")["final"]
    assert found.stdout.startswith(f"accuracy {final:.4f}, macro_f1 ")
    assert found.stdout.endswith(" on 12 rows of data/test.jsonl\n")


def test_predict_lines_of_stdin_needs_no_data(folder: Any, first: Any, tmp_path: Path) -> None:
    shutil.copytree(folder.path / "runs/labels", tmp_path / "moved")
    found = type(folder)(tmp_path).run("predict", "moved", input="wave reef\n\nsun moon\n")
    assert (found.returncode, found.stderr) == (0, "")
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    assert [row["text"] for row in rows] == ["wave reef", "sun moon"]
    for row in rows:
        shares = row["probabilities"]
        assert sum(shares.values()) == pytest.approx(1)
        assert list(shares.values()) == sorted(shares.values(), reverse=True)
        assert row["prediction"] == next(iter(shares))


def test_predict_a_file_agrees_with_the_accuracy(folder: Any, first: Any) -> None:
    words = ("--input", "data/test.jsonl", "--output", "found.jsonl", "--format", "json")
    found = folder.run("predict", "runs/labels", *words)
    assert found.stderr == "Wrote 12 rows to found.jsonl\n"
    rows = folder.lines("found.jsonl")
    assert json.loads(found.stdout)["predictions"] == rows
    right = sum(row["prediction"] == row["label"] for row in rows) / len(rows)
    final = folder.json("runs/labels/summary.json")["final"]
    assert right == pytest.approx(final, abs=1e-6)
