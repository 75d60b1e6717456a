"""Masked words, tags, numbers and several labels, from a file to predictions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Folder, write_rows
from tests.support.models import Zoo
from tests.support.text_tasks import number_rows, plain_rows, tagged_rows, topic_rows

TASKS: dict[str, tuple[Any, str, list[str]]] = {
    "masked-lm": (plain_rows, "pseudo_perplexity", ["masked_accuracy"]),
    "token-classification": (tagged_rows, "f1", ["precision", "recall", "accuracy"]),
    "regression": (number_rows, "rmse", ["mae", "r2"]),
    "multi-label-classification": (topic_rows, "micro_f1", ["macro_f1", "subset_accuracy"]),
}
SIZES = {"ada": 9, "bob": 4, "cy": 6}


@dataclass(frozen=True)
class Done:
    """A finished run of a task."""

    task: str
    folder: Folder
    run: Any


@pytest.fixture(scope="module", params=TASKS)
def done(
    request: pytest.FixtureRequest, zoo: Zoo, tmp_path_factory: pytest.TempPathFactory
) -> Done:
    task = str(request.param)
    path: Path = tmp_path_factory.mktemp(task)
    rows = TASKS[task][0]({**SIZES, "test": 8})
    for client in SIZES:
        write_rows(path / "data" / client / "train.jsonl", rows[client])
    write_rows(path / "data" / "test.jsonl", rows["test"])
    (path / "e.yaml").write_text(
        f"model: {{name_or_path: {zoo('bert')}, task: {task}}}\n"
        "data: {path: data/, max_length: 10}\n"
        "federation: {num_rounds: 1}\n"
        "output_dir: run\n"
    )
    folder = Folder(path)
    return Done(task, folder, folder.run("run", "e.yaml"))


def test_it_runs_from_a_file(done: Done) -> None:
    assert done.run.returncode == 0, done.run.stderr
    summary, (_, name, others) = done.folder.json("run/summary.json"), TASKS[done.task]
    assert (summary["task"], summary["metric"]) == (done.task, name)
    for arm in ("federated", "local", "pooled"):
        numbers = summary["metrics"][arm]
        assert list(numbers) == [name, *others]
        assert all(isinstance(value, float) for value in numbers.values()), arm
    assert summary["final"] == summary["metrics"]["federated"][name]
    assert set(summary["per_client"]) == set(SIZES)
    assert [line["round"] for line in done.folder.lines("run/rounds.jsonl")] == [0, 1]
    cut = [line for line in done.run.stderr.splitlines() if line.startswith("data.max_length")]
    assert len(cut) == (done.task != "multi-label-classification")


def test_eval_gives_the_numbers_of_the_run(done: Done) -> None:
    summary = done.folder.json("run/summary.json")
    found = done.folder.run("eval", "run", "--format", "json")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["final"] == pytest.approx(summary["final"], rel=1e-5)


def test_predictions_agree_with_the_metric(done: Done) -> None:
    if done.task == "masked-lm":
        found = done.folder.run("predict", "run", "--text", "reef [MASK] sun", "--top", "4")
        (row,) = [json.loads(line) for line in found.stdout.splitlines()]
        (choices,) = row["masks"]
        assert len(choices) == 4
        assert row["prediction"] == f"reef {choices[0]['token']} sun"
        return
    found = done.folder.run("predict", "run", "--input", "data/test.jsonl")
    assert found.returncode == 0, found.stderr
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    metrics = done.folder.json("run/summary.json")["metrics"]["federated"]
    if done.task == "regression":
        gaps = [abs(row["prediction"] - row["label"]) for row in rows]
        assert sum(gaps) / len(gaps) == pytest.approx(metrics["mae"], rel=1e-4)
    elif done.task == "multi-label-classification":
        whole = [set(row["prediction"]) == set(row["label"]) for row in rows]
        assert sum(whole) / len(whole) == pytest.approx(metrics["subset_accuracy"])
    else:
        pairs = [
            (said, given)
            for row in rows
            for said, given in zip(row["prediction"], row["tags"], strict=True)
            if said is not None
        ]
        right = sum(said == given for said, given in pairs)
        assert right / len(pairs) == pytest.approx(metrics["accuracy"])


WRONG = {
    "token-classification": ({"tokens": ["a", "b"], "tags": ["O"]}, "2 tokens but 1 tags"),
    "regression": ({"text": "reef", "label": "many"}, "a label is `many`, and a regression"),
}


@pytest.mark.parametrize("task", WRONG)
def test_rows_that_it_cannot_use_are_a_sentence_and_a_code(
    task: str, zoo: Zoo, tmp_path: Path
) -> None:
    row, message = WRONG[task]
    write_rows(tmp_path / "wrong/ada/train.jsonl", [row] * 3)
    (tmp_path / "e.yaml").write_text(
        f"model: {{name_or_path: {zoo('bert')}, task: {task}}}\ndata: {{path: wrong/}}\n"
    )
    found = Folder(tmp_path).run("run", "e.yaml", "output_dir=bad")
    assert (found.returncode, found.stdout) == (3, "")
    assert found.stderr.startswith("Error: ")
    assert message in found.stderr
    assert not (tmp_path / "bad").exists()
