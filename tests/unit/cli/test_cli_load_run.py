"""A finished run opened again: what fits, what does not, and what has changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from atoll.cli.app import guarded
from atoll.config import load
from atoll.errors import DataError, ModelError, RunError
from atoll.experiment.setup import prepare
from atoll.runs.run import run_experiment
from atoll.runs.where import Observer
from atoll.trained.load_run import load_run
from atoll.trained.readings import readings

if TYPE_CHECKING:
    from tests.support.models import Zoo

ROWS = [{"text": text, "label": label} for text, label in
        (("wave reef", "sea"), ("sun moon", "sky"), ("tide", "sea"), ("star", "sky"))]  # fmt: skip


@pytest.fixture(scope="module")
def origin(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a finished run."""
    path = tmp_path_factory.mktemp("origin")
    for client in ("ada", "bob"):
        (path / "data" / client).mkdir(parents=True)
        text = "".join(json.dumps(row) + "\n" for row in ROWS)
        (path / "data" / client / "train.jsonl").write_text(text)
    (path / "e.yaml").write_text(
        f"model: {{name_or_path: {zoo('bert')}, pooling: mean}}\n"
        f"data: {{path: {path / 'data'}, max_length: 8}}\n"
        "adapter: {head_features: 16}\n"
        "federation: {num_rounds: 1}\n"
        "evaluate: {baselines: []}\n"
    )
    setup = prepare(load(path / "e.yaml"), note=lambda text: None)
    run_experiment(setup, path / "run", Observer())
    return path


@pytest.fixture
def run(origin: Path, tmp_path: Path) -> Path:
    """A copy of the run directory, to be damaged."""
    shutil.copytree(origin / "run", tmp_path / "run")
    return tmp_path / "run"


def _quiet(text: str) -> None:
    pass


def test_values_are_those_that_were_exported(run: Path) -> None:
    found = load_run(run, note=_quiet)
    lora = load_file(run / "adapter/adapter_model.safetensors")
    head = load_file(run / "adapter/head.safetensors")
    names = {f"backbone.{name.removeprefix('base_model.model.')}": name for name in lora}
    assert found.values.keys() == names.keys() | {"classifier.weight", "classifier.bias"}
    for name, exported in names.items():
        assert torch.equal(found.values[name], lora[exported])
    assert torch.equal(found.values["classifier.weight"], head["classifier.weight"])


def test_no_row_is_needed_to_predict(run: Path, origin: Path, tmp_path: Path) -> None:
    text = (run / "experiment.yaml").read_text()
    (run / "experiment.yaml").write_text(text.replace(str(origin), "/nowhere"))
    asked = [{"text": "wave"}, {"text": "sun moon"}]
    labels = [x["prediction"] for x in readings(load_run(run, note=_quiet), asked, top=1)]
    assert set(labels) <= {"sea", "sky"}
    with pytest.raises(DataError, match="There is no file or folder /nowhere/data"):
        load_run(run, note=_quiet, with_data=True)


def test_a_relative_model_folder_is_found_from_elsewhere(
    origin: Path, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, away = tmp_path / "home", tmp_path / "away"
    shutil.copytree(zoo("bert"), home / "m" / "bert")
    away.mkdir()
    monkeypatch.chdir(home)
    setup = prepare(load(origin / "e.yaml", overrides=["model.name_or_path=m/bert"]), note=_quiet)
    run_experiment(setup, away / "run", Observer())
    folder = str(home / "m" / "bert")
    facts = json.loads((away / "run/adapter/atoll.json").read_text())
    peft = json.loads((away / "run/adapter/adapter_config.json").read_text())
    assert facts["base_model"] == peft["base_model_name_or_path"] == folder
    assert f'base_model: "{folder}"\n' in (away / "run/adapter/README.md").read_text()
    monkeypatch.chdir(away)
    assert load_run(away / "run", note=_quiet).setup.base.source.path == folder
    (home / "m").rename(away / "m")
    assert load_run(away / "run", note=_quiet).setup.base.source.path == str(away / "m" / "bert")
    (away / "m").rename(home / "elsewhere")
    with pytest.raises(ModelError, match=f"model folder {folder} does not exist"):
        load_run(away / "run", note=_quiet)


def test_a_tensor_of_another_shape(run: Path) -> None:
    _rewrite(run, "classifier.weight", torch.zeros(2, 17))
    with pytest.raises(ModelError) as error:
        load_run(run, note=_quiet)
    assert str(error.value).startswith(f"{run}/adapter: classifier.weight is (2, 17), but ")
    assert str(error.value).endswith(" needs (2, 16)")


def test_a_tensor_that_is_missing(run: Path) -> None:
    _rewrite(run, "classifier.bias", None)
    with pytest.raises(ModelError, match=r"/adapter holds no classifier\.bias, which the adapter "):
        load_run(run, note=_quiet)


def test_a_tensor_too_many(run: Path) -> None:
    _rewrite(run, "extra", torch.zeros(1))
    with pytest.raises(ModelError, match=r"/adapter holds extra, which has no place in "):
        load_run(run, note=_quiet)


def test_a_file_that_is_no_safetensors(run: Path) -> None:
    (run / "adapter/adapter_model.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors cannot be read as safetens"):
        load_run(run, note=_quiet)


def test_another_rank_does_not_fit(run: Path) -> None:
    text = (run / "experiment.yaml").read_text()
    (run / "experiment.yaml").write_text(text.replace("  r: 8\n", "  r: 4\n"))
    with pytest.raises(ModelError, match=r"lora_A\.weight is \(8, 32\), but .* needs \(4, 32\)"):
        load_run(run, note=_quiet)


def test_runs_that_are_not_there_or_not_finished(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run directory"):
        load_run(tmp_path / "nothing", note=_quiet)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"is no run directory: it holds no experiment\.yaml"):
        load_run(tmp_path / "empty", note=_quiet)
    (run / "summary.json").unlink()
    with pytest.raises(RunError) as error:
        load_run(run, note=_quiet)
    assert str(error.value) == (
        f"the run in {run} is not finished; `atoll run {run}/experiment.yaml` runs it"
    )


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_broken_record(run: Path, text: str) -> None:
    (run / "adapter/atoll.json").write_text(text)
    with pytest.raises(RunError, match="run the experiment again"):
        load_run(run, note=_quiet)


def test_changed_data_are_said(run: Path, origin: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(origin / "data", data)
    text = (run / "experiment.yaml").read_text()
    (run / "experiment.yaml").write_text(text.replace(str(origin / "data"), str(data)))
    notes: list[str] = []
    load_run(run, note=notes.append, with_data=True)
    assert not [note for note in notes if "rows" in note]
    with (data / "ada/train.jsonl").open("a") as file:
        file.write('{"text": "gull", "label": "sky"}\n')
    load_run(run, note=notes.append, with_data=True)
    assert f"{data} holds other rows than when the run was trained" in notes
    (run / "federation.json").write_text("{}")
    load_run(run, note=notes.append, with_data=True)
    assert f"{data} may hold other rows than when the run was trained" in notes
    with (data / "ada/train.jsonl").open("a") as file:
        file.write('{"text": "gull", "label": "wind"}\n')
    with pytest.raises(DataError, match=r"no longer has the labels that .* \(2, now 3\)"):
        load_run(run, note=_quiet, with_data=True)


def test_rows_with_unknown_labels_or_none(run: Path, tmp_path: Path) -> None:
    trained = load_run(run, note=_quiet)
    path = tmp_path / "new.jsonl"
    path.write_text('{"text": "a", "label": "moat"}\n')
    with pytest.raises(DataError, match="label `moat` is in test rows"):
        trained.rows(path)
    path.write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match=r"new\.jsonl:1: the row has no `label`"):
        trained.rows(path)
    path.write_text("\n")
    with pytest.raises(DataError, match=r"new\.jsonl: no rows; give at least one$"):
        trained.rows(path)
    path.write_text('{"text": "a", "label": "sea"}\n')
    assert trained.rows(path) == [{"text": "a", "label": "sea"}]


def _rewrite(run: Path, name: str, value: torch.Tensor | None) -> None:
    file = run / "adapter/head.safetensors"
    head = {**load_file(file), name: value}
    save_file({key: tensor for key, tensor in head.items() if tensor is not None}, file)


def test_a_run_that_stopped_early_does_not_go_on_with_more_rounds(
    run: Path, origin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = json.loads((run / "summary.json").read_text())
    words = ["run", str(origin / "e.yaml"), f"output_dir={run}", "--format", "json"]
    for rounds, hint in ((1, "or a larger federation.num_rounds to go on"), (0, "or add --fork")):
        (run / "summary.json").write_text(json.dumps({**summary, "num_rounds": rounds}))
        assert guarded(words) == 0
        found = capsys.readouterr()
        assert json.loads(found.out)["already_finished"] is True
        assert ("It stopped early, after round 0" in found.err) == (rounds == 0)
        assert hint in found.err


@pytest.mark.parametrize(
    ("name", "content"),
    [("summary.json", "[]"), ("summary.json", "{"), ("run.json", "{}"), ("run.json", "null")],
)
def test_a_finished_run_with_a_damaged_file(
    run: Path, origin: Path, capsys: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    (run / name).write_text(content)
    assert guarded(["run", str(origin / "e.yaml"), f"output_dir={run}"]) == 6
    assert capsys.readouterr().err.startswith(f"Error: {run}/{name} is damaged (")
