"""Bad input: the whole message and the exit code, before any training, nothing half-written."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ATOLL = Path(sys.executable).with_name("atoll")
COHORT = "federation.clients_per_round"


@pytest.fixture(scope="module", autouse=True)
def more_data(folder: Any) -> None:
    """Folders that are wrong, beside the one that is right."""
    right = (folder.path / "data/ada/train.jsonl").read_text()
    wrong = {
        "broken/ada": right, "broken/bob": '{"text": "wave", "label": "sea"}\n{"text": "wa',
    }  # fmt: skip
    for client, text in wrong.items():
        (folder.path / client).mkdir(parents=True)
        (folder.path / client / "train.jsonl").write_text(text)
    (folder.path / "typo.yaml").write_text(
        "model:\n  name_or_path: builtin:minilm\ndata:\n  path: data/\n  max_lenght: 8\n"
    )


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ["typo.yaml"], 2,
            'typo.yaml:5: unknown key "max_lenght" in data; did you mean "max_length"? Valid keys: '
            "path, partition, columns, max_length, truncation, holdout, labels, label_scale, "
            "completion_only, packing, mlm_probability",
        ),
        (
            ["labels.yaml", "model.name_or_path=./missing"], 4,
            "model folder ./missing does not exist",
        ),
        (
            ["labels.yaml", "data.path=broken/"], 3,
            "broken/bob/train.jsonl:2: broken JSON (Unterminated string starting at: line 1 column "
            '10 (char 9)): {"text": "wa; every line must be one JSON object.',
        ),
    ],
)  # fmt: skip
def test_bad_input_is_a_sentence_and_a_code(
    folder: Any, words: list[str], code: int, message: str
) -> None:
    found = folder.run("run", *words, "output_dir=runs/bad")
    assert (found.returncode, found.stdout) == (code, "")
    assert found.stderr == f"Error: {message}\n"
    assert not (folder.path / "runs/bad").exists()


def test_all_problems_of_a_file_are_told_at_once(folder: Any) -> None:
    found = folder.run("run", "typo.yaml", "adapter.r=0", "train.momentum=2")
    assert found.returncode == 2
    lines = found.stderr.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("Error: typo.yaml:5: unknown key ")


def test_a_client_whose_loss_is_nan_is_left_out_and_the_round_goes_on(folder: Any) -> None:
    # One step of this size is still finite, and ada is the only client that takes a second one.
    found = folder.run(
        "run", "labels.yaml", "output_dir=runs/nan", "adapter.head=train", "train.optimizer=sgd",
        "train.learning_rate=1e38", f"{COHORT}=3", "evaluate.baselines=[]",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    why = "its training loss became nan; lower train.learning_rate or look at its rows"
    assert f"round 1: ada is left out: {why}\n" in found.stderr
    last = folder.lines("runs/nan/rounds.jsonl")[-1]
    assert last["failures"] == {"ada": why}
    assert last["clients"] == 2
    assert (folder.path / "runs/nan/summary.json").is_file()


def test_a_full_disk_leaves_whole_files_only(folder: Any) -> None:
    limit = 20_000  # more than any of the text files, less than the adapter

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    found = folder.run(
        "run", "labels.yaml", "output_dir=runs/full", "evaluate.baselines=[]",
        preexec_fn=small_disk,
    )  # fmt: skip
    assert (found.returncode, found.stdout) == (6, "")
    last = found.stderr.splitlines()[-1]
    assert last.startswith("Error: runs/full/checkpoints/round-0 cannot be written: ")
    assert "larger than a file may be here" in last
    assert "Traceback" not in found.stderr
    names = folder.names("runs/full")
    assert names == {"experiment.yaml", "run.json", "rounds.jsonl", "checkpoints"}
    assert folder.names("runs/full/checkpoints") == set()
    assert [line["round"] for line in folder.lines("runs/full/rounds.jsonl")] == [0]


def test_nothing_held_out_is_null_in_the_document_and_has_no_table(folder: Any) -> None:
    words = ("run", "labels.yaml", "data.path=few/", "data.holdout=0", "output_dir=runs/unmeasured")
    for client in ("ada", "bob"):
        text = (folder.path / "data" / client / "train.jsonl").read_text()
        (folder.path / "few" / client).mkdir(parents=True)
        (folder.path / "few" / client / "train.jsonl").write_text(text)
    found = folder.run(*words)
    assert found.returncode == 0, found.stderr
    assert "no held-out rows: nothing is measured\n" in found.stderr
    assert "federated" not in found.stdout
    again = folder.run(*words, "--format", "json")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert json.loads(again.stdout, parse_constant=refuse)["final"] is None
    measured = folder.run("eval", "runs/unmeasured", "--format", "json")
    assert json.loads(measured.stdout, parse_constant=refuse)["final"] is None


def test_a_full_disk_behind_stdout() -> None:
    with Path("/dev/full").open("w") as full:
        found = subprocess.run(
            [ATOLL, "schema"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert found.returncode == 6
    assert found.stderr == "Error: [Errno 28] No space left on device\n"
