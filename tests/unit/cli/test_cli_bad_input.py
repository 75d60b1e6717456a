"""Bad input of `atoll run`: the whole message and the exit code, and no run directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from atoll.cli.app import guarded
from atoll.cli.run import located

if TYPE_CHECKING:
    from tests.support.models import Zoo

ROWS = [{"text": text, "label": label} for text, label in
        (("wave reef", "sea"), ("sun moon", "sky"), ("tide", "sea"), ("star", "sky"))]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an experiment that would run, and data that would not."""
    monkeypatch.chdir(tmp_path)
    rows = "".join(json.dumps(row) + "\n" for row in ROWS)
    files = {
        "data/ada/train.jsonl": rows, "data/bob/train.jsonl": rows,
        "no_rows/ada/train.jsonl": "", "no_rows/bob/train.jsonl": "\n",
        "odd_test/ada/train.jsonl": rows, "odd_test/test.jsonl": '{"text": "a", "label": "moat"}',
        "empty.jsonl": "", "none.yaml": "",
        "good.yaml": f"model: {{name_or_path: {zoo('bert')}, pooling: mean}}\n"
                     "data: {path: data/, max_length: 8}\n",
    }  # fmt: skip
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ["good.yaml", "train.learning_rate=fast"], 2,
            'on the command line: train.learning_rate is "fast"; expected a number greater than 0',
        ),
        (
            ["good.yaml", "adapter.r=0"], 2,
            "on the command line: adapter.r is 0: a LoRA of rank 0 trains nothing; use r >= 1, or "
            "adapter.method: none",
        ),
        (["god.yaml"], 2, "god.yaml: no such file; did you mean good.yaml?"),
        (
            ["none.yaml"], 2,
            "none.yaml: the file is empty; it needs at least model.name_or_path and data.path",
        ),
        (
            ["quickstrt"], 2,
            'there is no file quickstrt here, and there is no recipe "quickstrt"; did you mean '
            '"quickstart"? Recipes: classify, dpo, embed, finetune, private, quickstart, vision',
        ),
        (
            ["good.yaml", "model.name_or_path=data"], 4,
            "model folder data holds no config.json; give the directory that save_pretrained wrote",
        ),
        (
            ["good.yaml", "data.path=missing/"], 3,
            "There is no file or folder missing/; check the path.",
        ),
        (
            ["good.yaml", "data.path=no_rows/"], 3,
            "No client has a training row (ada: train.jsonl has no rows, bob: train.jsonl has no "
            "rows); add training rows.",
        ),
        (
            ["good.yaml", "data.path=empty.jsonl", "data.partition.num_clients=2"], 3,
            "empty.jsonl: no rows; the file is empty.",
        ),
        (
            ["good.yaml", "data.path=odd_test/"], 3,
            "The common test set (odd_test/test.jsonl:1): label `moat` is in test rows, but in no "
            "client's training rows. Add training rows, correct a misspelt label, or remove these "
            "test rows.",
        ),
        (
            ["good.yaml", "federation.clients_per_round=3"], 2,
            "on the command line: clients_per_round is 3, but only 2 clients have rows; lower it",
        ),
        (
            ["good.yaml", "data.path=data/ada/train.jsonl", "data.partition.num_clients=0"], 2,
            "on the command line: num_clients is 0; give at least 1.",
        ),
        (
            ["good.yaml", "model.pooling=model", "model.normalize=true"], 4,
            "on the command line: model.normalize is true, but the model's own head reads features "
            "as they are; set model.pooling to mean or cls, or remove model.normalize",
        ),
        (
            ["good.yaml", "evaluate.baselines=[local, local]"], 2,
            'on the command line: evaluate.baselines is ["local", "local"]: a baseline is named '
            "twice; name each once",
        ),
        (
            ["good.yaml", "data.columns={text: text, lable: label}"], 3,
            "task classification needs rows of text and label; data/ has text rows. Map the "
            "columns with data.columns (did you mean `label`?), or set model.task",
        ),
        (
            ["good.yaml", "federation.fraction_train=0.5", "federation.min_clients=2"], 2,
            "on the command line: min_clients is 2, but a round asks 1 client (fraction_train 0.5 "
            "of 2): no round would count; lower it, or ask more clients",
        ),
        (
            ["good.yaml", "model.revision=v1", "model.name_or_path=builtin:minilm"], 2,
            "on the command line: model.revision is v1, but builtin:minilm is not on the hub: it "
            "has no revisions; remove model.revision",
        ),
        (
            ["good.yaml", "adapter.target_modules=[no_such]"], 4,
            "on the command line: adapter.target_modules 'no_such' matches no linear layer of the "
            "model. Its linear layers end in: dense, key, query, value",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_a_sentence_and_a_code(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    message: str,
) -> None:
    assert guarded(["run", *words, "output_dir=runs/bad"]) == code
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err == f"Error: {message}\n"
    assert not (here / "runs").exists()


def test_a_home_is_found_in_output_dir(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(here))
    (here / "taken").write_text("")
    assert guarded(["run", "good.yaml", "output_dir=~/taken"]) == 6
    assert capsys.readouterr().err == (
        f"Error: output_dir {here}/taken is a file; set output_dir to a directory\n"
    )


def test_a_folder_named_as_a_recipe_does_not_hide_it(here: Path) -> None:
    for name in ("quickstart", "other"):
        (here / name).mkdir()
    with located("quickstart") as path:
        assert path.name == "quickstart.yaml"
    with located("other") as path:
        assert path == Path("other")


def test_all_problems_are_told_at_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(["run", "good.yaml", "adapter.r=0", "train.momentum=2"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (["data.max_length=9999"], "on the command line: data.max_length is 9999, but "),
        (
            ["federation.stages=[{name: clip, norm: 0}]"],
            "on the command line: stage 'clip': norm is 0.0; give a number above 0",
        ),
        (
            ["federation.algorithm.name=fedprox", "federation.algorithm.mu=-1"],
            "on the command line: fedprox: mu is -1.0; it must be 0 or more",
        ),
        (
            ["adapter.method=none", "federation.algorithm=fedprx"],
            'on the command line: unknown algorithm "fedprx"; did you mean "fedprox"? Valid: ',
        ),
    ],
)
def test_an_error_of_what_was_built_has_its_place(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], start: str
) -> None:
    assert guarded(["run", "good.yaml", *words]) in (2, 4)
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"Error: {start}")
