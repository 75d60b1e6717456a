"""A run that is stopped, goes on, is finished, gets more rounds, and is forked; as typed."""

from __future__ import annotations

import json
import signal
from typing import Any

RUN = ("run", "labels.yaml", "output_dir=runs/life", "evaluate.baselines=[]")


def test_the_life_of_a_run(folder: Any) -> None:
    process = folder.start(*RUN, "federation.num_rounds=40")
    for line in process.stderr:
        if line.startswith("round 2/40"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "stopped; runs/life keeps all finished rounds: the same command goes on" in err
    assert "Traceback" not in err
    done = len(folder.lines("runs/life/rounds.jsonl")) - 1

    goes_on = folder.run(*RUN, "federation.num_rounds=40", "--format", "json")
    assert goes_on.returncode == 0, goes_on.stderr
    assert f"going on after round {done} in runs/life" in goes_on.stderr
    assert [line["round"] for line in folder.lines("runs/life/rounds.jsonl")] == list(range(41))

    again = folder.run(*RUN, "federation.num_rounds=40", "--format", "json")
    assert again.returncode == 0
    assert "This run is finished" in again.stderr
    assert json.loads(again.stdout)["already_finished"] is True

    longer = folder.run(*RUN, "federation.num_rounds=42", "--format", "json")
    assert longer.returncode == 0, longer.stderr
    assert "more rounds than before: federation.num_rounds: 40 -> 42" in longer.stderr
    assert json.loads(longer.stdout)["num_rounds"] == 42

    other = (*RUN, "federation.num_rounds=42", "train.learning_rate=1e-4")
    refused = folder.run(*other)
    assert refused.returncode == 6
    assert refused.stderr.startswith(
        "Error: runs/life holds a run of another experiment (train.learning_rate: 0.001 -> 0.0001)"
        "; set output_dir to a new directory, or add --fork to start anew from its last checkpoint"
    )

    fork = ("run", "labels.yaml", "output_dir=runs/life", "evaluate.baselines=[]", "--fork",
            "federation.num_rounds=1", "train.learning_rate=1e-4")  # fmt: skip
    (folder.path / "runs/life-2").write_text("A file of the user's.")
    forked = folder.run(*fork, "--format", "json")
    assert forked.returncode == 0, forked.stderr
    assert json.loads(forked.stdout)["run"] == "runs/life-3"
    assert "starting anew from round 42 of " in forked.stderr
    assert folder.json("runs/life-3/run.json")["forked_from"]["round"] == 42
    again = folder.run(*fork)
    assert "This run is finished; its result stands in runs/life-3" in again.stderr


def test_nothing_to_fork(folder: Any) -> None:
    found = folder.run("run", "labels.yaml", "output_dir=runs/none", "--fork")
    assert found.returncode == 6
    assert found.stderr.startswith("Error: --fork starts from the run in runs/none, but there is")
