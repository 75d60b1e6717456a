"""Files and command lines that are read; the other files here are of what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from atoll.config import Call, Experiment, dump, load

MINIMAL = "model: {name_or_path: builtin:minilm}\ndata: {path: data/}\n"


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(text: str, *overrides: str) -> Experiment:
    Path("finetune.yaml").write_text(text)
    return load("finetune.yaml", overrides=overrides).experiment


def test_a_model_and_data_are_enough() -> None:
    experiment = read(MINIMAL)
    assert experiment.model.name_or_path == "builtin:minilm"
    assert experiment.data.path == "data/"
    assert experiment.output_dir == "runs/finetune"
    assert experiment.federation.algorithm == Call("fedavg")
    assert experiment.federation.runtime == Call("inprocess")


def test_the_file_of_the_design() -> None:
    experiment = read(
        """
model:
  name_or_path: sentence-transformers/all-MiniLM-L6-v2
  task: classification
  dtype: auto
data:
  path: data/
  partition: {name: dirichlet, alpha: 0.1, num_clients: 20}
  columns: {}
  max_length: 64
adapter: {method: lora, r: 8, lora_alpha: 16, lora_dropout: 0.0, target_modules: all-linear, head: ridge}
train: {learning_rate: 1.0e-3, head_learning_rate: null, optimizer: adamw, per_device_train_batch_size: 8, num_train_epochs: 1, max_steps: null, lr_scheduler_type: constant, warmup_steps: 0, max_grad_norm: 1.0, gradient_accumulation_steps: 1, group_size: auto}
federation:
  num_rounds: 20
  clients_per_round: 10
  min_clients: 1
  algorithm: {name: fedavg}
  runtime: {name: inprocess}
privacy: {}
evaluate: {every: 1, baselines: [local, pooled], patience: null}
devices: {}
report_to: none
seed: 0
output_dir: runs/finetune
"""  # noqa: E501
    )
    assert experiment.data.partition == Call("dirichlet", {"alpha": 0.1, "num_clients": 20})
    assert experiment.evaluate.baselines == ("local", "pooled")


def test_a_number_with_an_exponent_and_no_point_is_a_number() -> None:
    assert read(f"{MINIMAL}train: {{learning_rate: 1e-3}}").train.learning_rate == 1e-3


@pytest.mark.parametrize("word", ["no", "yes", "on", "off", "1:30", "2024-01-01", "1_000", "0x10"])
def test_words_of_old_yaml_are_text(word: str) -> None:
    experiment = read(f"model: {{name_or_path: a, revision: {word}}}\ndata: {{path: b}}")
    assert experiment.model.revision == word


@pytest.mark.parametrize(
    ("text", "value"),
    [("12", 12), ("010", 10), (".5", 0.5), ("-1.", -1.0), ("1e3", 1000.0), (".inf", float("inf"))],
)
def test_numbers(text: str, value: float) -> None:
    call = read(f"{MINIMAL}federation: {{algorithm: {{name: a, x: {text}}}}}").federation.algorithm
    assert call.arguments == {"x": value}
    assert type(call.arguments["x"]) is type(value)


def test_an_integer_is_a_number() -> None:
    assert read(f"{MINIMAL}adapter: {{lora_alpha: 32}}").adapter.lora_alpha == 32.0


def test_keys_are_text_whatever_they_look_like() -> None:
    experiment = read("model: {name_or_path: a}\ndata: {path: b, columns: {1: text, no: label}}")
    assert experiment.data.columns == {"1": "text", "no": "label"}


def test_a_partition_without_a_name_is_iid() -> None:
    experiment = read("model: {name_or_path: a}\ndata: {path: b, partition: {num_clients: 20}}")
    assert experiment.data.partition == Call("iid", {"num_clients": 20})


def test_a_section_without_values_keeps_its_defaults() -> None:
    experiment = read(f"{MINIMAL}train:\n  # learning_rate: 1\nprivacy:\noutput_dir:\n")
    assert experiment == read(MINIMAL)


@pytest.mark.parametrize(("task", "head"), [("classification", None), ("causal-lm", None)])
def test_the_head_follows_the_task(task: str, head: str | None) -> None:
    assert read(MINIMAL, f"model.task={task}").adapter.head == head


def test_a_call_knows_where_it_stands() -> None:
    federation = read(
        f"{MINIMAL}federation:\n  stages: [a, {{name: b, x: 1}}]\n  server: c\n  aggregator: d"
    ).federation
    calls = [*federation.stages, federation.server, federation.aggregator, federation.algorithm]
    assert [call.path for call in calls if call] == [
        "federation.stages.0",
        "federation.stages.1",
        "federation.server",
        "federation.aggregator",
        "federation.algorithm",
    ]


def test_where_each_value_was_given() -> None:
    Path("finetune.yaml").write_text(f"{MINIMAL}federation:\n  stages:\n    - a\n    - {{name: b}}")
    loaded = load("finetune.yaml", overrides=["seed=3", "federation.algorithm={name: x, mu: 1}"])
    assert loaded.path == Path("finetune.yaml")
    keys = {
        "model": "finetune.yaml:1",
        "data.path": "finetune.yaml:2",
        "federation.stages": "finetune.yaml:4",
        "federation.stages.1": "finetune.yaml:6",
        "federation.stages.1.name": "finetune.yaml:6",
        "seed": "on the command line",
        "federation.algorithm.mu": "on the command line",
        "train.learning_rate": "default",
    }
    assert {key: loaded.where(key) for key in keys} == keys


def test_a_value_that_is_overridden_leaves_no_position_in_the_file() -> None:
    Path("finetune.yaml").write_text(f"{MINIMAL}federation: {{server: {{name: a, x: 1}}}}")
    loaded = load("finetune.yaml", overrides=["federation.server=b"])
    assert loaded.where("federation.server") == "on the command line"
    assert loaded.where("federation.server.x") == "default"


def test_overrides_replace_make_and_index() -> None:
    experiment = read(
        f"{MINIMAL}federation: {{algorithm: fedprox, stages: [a, b]}}",
        "federation.num_rounds=5",
        "federation.num_rounds=6",
        "train.learning_rate=1e-4",
        "data.columns.text=body",
        "data.columns.label=a=b",
        "federation.algorithm.mu=0.1",
        "federation.stages.1.x=2",
        "adapter.target_modules=[q, v]",
        "evaluate.patience=",
    )
    assert experiment.federation.num_rounds == 6
    assert experiment.train.learning_rate == 1e-4
    assert experiment.data.columns == {"text": "body", "label": "a=b"}
    assert experiment.federation.algorithm == Call("fedprox", {"mu": 0.1})
    assert experiment.federation.stages == (Call("a"), Call("b", {"x": 2}))
    assert experiment.adapter.target_modules == ("q", "v")


def test_an_override_may_mend_a_wrong_file() -> None:
    assert read(f"{MINIMAL}seed: x", "seed=1").seed == 1


def test_values_are_frozen() -> None:
    experiment = read(MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        experiment.train.learning_rate = 1.0  # type: ignore[misc]


def test_a_dump_is_read_by_any_yaml_reader() -> None:
    experiment = read(MINIMAL, "federation.algorithm={name: a, word: 'no', number: 1e-9}")
    plain = yaml.safe_load(dump(experiment))
    assert list(plain) == list(Experiment.model_fields)
    assert plain["federation"]["algorithm"] == {"name": "a", "word": "no", "number": 1e-9}
    assert plain["federation"]["runtime"] == "inprocess"
    assert plain["train"]["adam_epsilon"] == 1e-8


def test_the_import_is_light() -> None:
    code = "import sys, atoll.config; print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    ).stdout
    assert printed == "set()\n"
