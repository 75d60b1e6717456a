"""The first steps: recipes, a folder of one's own, and stopping."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any


def test_init_two_edits_run(folder: Any, zoo: Any, tmp_path: Path) -> None:
    started = folder.run("init", "classify")
    assert started.returncode == 0
    path = folder.path / "classify.yaml"
    lines = path.read_text().splitlines()
    edited = 0
    for number, line in enumerate(lines):
        if "# EDIT" in line:
            key = line.partition(":")[0]
            value = zoo("bert") if "name_or_path" in key else "mine/"
            lines[number], edited = f"{key}: {value}", edited + 1
    assert edited == 2
    path.write_text("\n".join(lines) + "\n")
    for client in ("ada", "bob", "cy"):
        text = (folder.path / "data" / client / "train.jsonl").read_text()
        (folder.path / "mine" / client).mkdir(parents=True)
        (folder.path / "mine" / client / "train.jsonl").write_text(text)
    (folder.path / "mine" / "dee").mkdir()
    found = folder.run("run", "classify.yaml", "federation.num_rounds=1", "--format", "json")
    assert found.returncode == 0, found.stderr
    assert "1 client without rows left out: dee (an empty folder)\n" in found.stderr
    summary = json.loads(found.stdout)
    assert summary["run"] == "runs/classify"
    assert summary["skipped_clients"] == ["dee"]
    assert set(summary["per_client"]) == {"ada", "bob", "cy"}


def test_a_recipe_runs_by_its_name_and_takes_other_data(folder: Any) -> None:
    found = folder.run(
        "run", "quickstart", "data.path=data/", "data.partition=null", "data.max_length=8",
        "federation.clients_per_round=2", "federation.num_rounds=1", "evaluate.baselines=[]",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    summary = folder.json("runs/quickstart/summary.json")
    # MiniLM tells sea from sky in the words that it was trained on.
    assert summary["final"] > 0.8
    assert found.stdout.splitlines()[2].split()[:2] == ["federated", f"{summary['final']:.3f}"]
    assert folder.json("runs/quickstart/adapter/atoll.json")["base_model"] == "builtin:minilm"


def test_ctrl_c_is_code_130_and_leaves_no_result(folder: Any) -> None:
    process = folder.start(
        "run", "labels.yaml", "output_dir=runs/stopped", "federation.num_rounds=1000"
    )
    for line in process.stderr:
        if line.startswith("round 1/1000"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "Error: interrupted"
    assert "Traceback" not in err
    assert "summary.json" not in folder.names("runs/stopped")
    lines = folder.lines("runs/stopped/rounds.jsonl")
    assert [line["round"] for line in lines] == list(range(len(lines)))


def test_recipes_as_json(folder: Any) -> None:
    found = json.loads(folder.run("recipes", "--format", "json").stdout)
    names = {"classify", "dpo", "embed", "finetune", "private", "quickstart", "vision"}
    assert {recipe["name"] for recipe in found} == names
