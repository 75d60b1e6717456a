"""`atoll plan`: the table, the document, and that it refuses what `atoll run` refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from atoll.cli.output import Format
from atoll.cli.plan import plan
from atoll.cli.run import run
from atoll.errors import AtollError, ConfigError
from tests.support.federation import labelled_rows
from tests.support.models import Zoo
from tests.support.scenes import write_clients


@pytest.fixture
def file(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An experiment file on a tiny model, in the folder where commands are typed."""
    monkeypatch.chdir(tmp_path)
    write_clients(tmp_path / "data", labelled_rows())
    content = {
        "model": {"name_or_path": zoo("bert")},
        "data": {"path": "data", "max_length": 16},
        "train": {"device": "cpu", "group_size": 2, "per_device_train_batch_size": 2},
        "federation": {"num_rounds": 2, "clients_per_round": 2},
    }
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(content))
    return "experiment.yaml"


def _said(word: Callable[..., None], file: str, *values: str) -> str:
    with pytest.raises(AtollError) as error:
        word(file, list(values))
    return f"{error.value.exit_code} {error.value}"


def test_people_see_what_travels_what_it_takes_and_whether_it_fits(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(file)
    out = capsys.readouterr().out
    assert "5 clients, 2 in a round; 2 rounds, " in out
    rows = ("head (fedlda)", "adapter round", "evaluation", "in all", "memory (most: ", "disk",
            "time: rounds", "time: baseline local", "time: baseline pooled")  # fmt: skip
    assert [row for row in rows if row not in out] == []
    assert not Path("runs").exists()


# Of 5 one may be corrupt or stop: more than half of 5 + 1 sign, and none of fewer than 3 is opened.
@pytest.mark.parametrize(("how", "says"), [
    ("true", "secure sums of 5 clients: each masks with 4 others, and 4 must stay to the end, so "
             "that 1 may stop"),
    ("ckks", "encrypted sums: none of fewer than 3 clients is decrypted"),
])  # fmt: skip
def test_people_see_who_is_summed(
    how: str, says: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if how == "ckks":
        pytest.importorskip("tenseal")
    plan(file, [
        f"privacy.secure_aggregation={how}", "privacy.clip=1.0", "privacy.min_survivors=3",
        "federation.clients_per_round=5", "data.labels=[sea, land, sky, life]",
        "adapter.head=train",
    ])  # fmt: skip
    assert says in capsys.readouterr().out


def test_the_document_is_that_of_the_run_that_follows(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(file, output_format=Format.json)
    said = json.loads(capsys.readouterr().out)
    run(file, output_format=Format.json)
    took = json.loads(capsys.readouterr().out)
    for name in ("trainable_parameters", "num_rounds", "exchanges", "bytes_up", "bytes_down"):
        assert said[name] == took[name]
    lines = Path("runs/experiment/rounds.jsonl").read_text(encoding="utf-8").splitlines()
    for ours, line in zip(said["rounds"], lines, strict=True):
        assert ours == {name: json.loads(line)[name] for name in ours}
    memory = said["memory"]
    assert memory["fits"] is True
    assert memory["before"] < memory["peak"] == memory["total"] < memory["limit"]
    seconds = said["seconds"]
    assert seconds["whole"] == pytest.approx(sum(seconds["parts"].values()))
    assert all(value >= 0 for value in seconds["parts"].values())
    assert said["disk"]["fits"] is True
    assert said["probe"] is None
    assert said["advice"] == []


@pytest.mark.parametrize(
    "values",
    [
        ["federation.num_round=3"],
        ["federation.clients_per_round=9"],
        ["model.name_or_path=/no/such/model"],
        ["data.path=nowhere.jsonl"],
        ["adapter.target_modules=[nothing]"],
        ["federation.algorithm=fedsgdx"],
        ["federation.aggregator=median", "federation.stages=[by_examples]"],
        ["data.max_length=100000"],
        ["output_dir=experiment.yaml"],
        ["train.device=cuda"],
    ],
)
def test_it_refuses_what_a_run_refuses_in_the_same_words(file: str, values: list[str]) -> None:
    import torch

    if values == ["train.device=cuda"] and torch.cuda.is_available():
        pytest.skip("there is such a device here")
    assert _said(plan, file, *values) == _said(run, file, *values)


def test_a_directory_of_another_run_is_refused_and_left_alone(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(file, ["federation.num_rounds=0", "evaluate.baselines=[]"])
    place = Path("runs/experiment")
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    assert _said(plan, file) == _said(run, file)
    capsys.readouterr()
    plan(file, ["federation.num_rounds=0", "evaluate.baselines=[]"])
    assert "this run is finished" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


def test_a_probe_shows_losses_and_a_rate(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan(file, ["federation.num_rounds=1", "train.learning_rate=0.002"], probe=True)
    captured = capsys.readouterr()
    assert "learning rate 0.002, " in captured.err
    assert "train.learning_rate=" in captured.out
    assert "cy, loss on " in captured.out
    plan(file, ["federation.num_rounds=1"], probe=True, output_format=Format.json)
    found = json.loads(capsys.readouterr().out)["probe"]
    tried = sorted({one["learning_rate"] for one in found["trials"]})
    assert tried == pytest.approx([0.0001, 0.0003, 0.001, 0.003, 0.01])
    assert all(one["after"] is None or one["after"] > 0 for one in found["trials"])


def test_a_probe_of_nothing_is_refused(file: str) -> None:
    with pytest.raises(ConfigError, match="nothing trains in rounds"):
        plan(file, ["adapter.method=none", "federation.num_rounds=0"], probe=True)
