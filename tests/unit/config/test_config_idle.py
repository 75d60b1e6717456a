"""Values that another value keeps from being read are refused, word for word."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from atoll.config import dump, load

Refusal = Callable[..., list[str]]
MINIMAL = "model: {name_or_path: a}\ndata: {path: b}\n"


@pytest.mark.parametrize(
    ("lines", "messages"),
    [
        (
            "adapter:\n  head: train\n  refit_every: 2\n  local_head: solved",
            [
                "f.yaml:5: adapter.refit_every is 2, but adapter.head is train: only a solved head "
                "reads it; remove adapter.refit_every",
                "f.yaml:6: adapter.local_head is solved, but adapter.head is train: only a solved "
                "head reads it; remove adapter.local_head",
            ],
        ),
        (
            "adapter: {head_exchanges: 3}",
            [
                "f.yaml:3: adapter.head_exchanges is 3, but adapter.head is null: only a logistic "
                "head reads it; remove adapter.head_exchanges"
            ],
        ),
        (
            "adapter: {head: logistic, head_ridge: 0.1}",
            [
                "f.yaml:3: adapter.head_ridge is 0.1, but adapter.head is logistic: only a ridge "
                "head reads it; remove adapter.head_ridge"
            ],
        ),
        (
            "train: {optimizer: sgd, adam_beta2: 0.9}",
            [
                "f.yaml:3: train.adam_beta2 is 0.9, but train.optimizer is sgd: only adamw reads "
                "it; remove train.adam_beta2"
            ],
        ),
        (
            "train: {max_grad_norm: 0.5}\nprivacy: {unit: example, epsilon: 8}",
            [
                "f.yaml:3: train.max_grad_norm is 0.5, but privacy.unit is example: privacy.clip "
                "cuts each row's gradient in its place; remove train.max_grad_norm"
            ],
        ),
        (
            "train: {head_learning_rate: 0.1}",
            [
                "f.yaml:3: train.head_learning_rate is 0.1, but adapter.head is null: only a head "
                "that is trained in rounds has a learning rate; remove train.head_learning_rate"
            ],
        ),
    ],
)
def test_idle_values_are_refused(refusal: Refusal, lines: str, messages: list[str]) -> None:
    assert refusal(f"{MINIMAL}{lines}\n") == messages


@pytest.mark.parametrize(
    ("norm", "privacy"), [("null", "{unit: example, epsilon: 8}"), ("0.5", "{epsilon: 8}")]
)
def test_a_bound_on_a_client_s_gradient_is_read_or_is_none(
    tmp_path: Path, norm: str, privacy: str
) -> None:
    text = f"{MINIMAL}train: {{max_grad_norm: {norm}}}\nprivacy: {privacy}\n"
    (tmp_path / "f.yaml").write_text(text)
    assert load(tmp_path / "f.yaml").experiment.train.max_grad_norm in (None, 0.5)


@pytest.mark.parametrize(
    "key",
    [
        "model.pooling=mean", "model.normalize=false", "adapter.head=train",
        "adapter.head_features=8", "adapter.refit_every=1", "adapter.head_exchanges=1",
        "adapter.head_ridge=1", "adapter.local_head=solved", "adapter.train_head=true",
        "train.head_learning_rate=1", "train.restricted=true", "train.logit_adjustment=1",
        "train.class_balance=true",
    ],
)  # fmt: skip
def test_a_language_model_has_no_classes(refusal: Refusal, key: str) -> None:
    name, _, value = key.partition("=")
    (found,) = refusal("model: {name_or_path: a, task: causal-lm}\ndata: {path: b}\n", key)
    start = f"on the command line: {name} is {value}, but model.task is causal-lm: it"
    assert found.startswith((f"{start} has no ", f"{start}s rows have no class"))
    assert found.endswith(f"; remove {name}")
    Path("g.yaml").write_text(MINIMAL)
    more = {"adapter.head_exchanges": ["adapter.head=logistic"], "adapter.head_ridge": [
        "adapter.head=ridge"], "train.head_learning_rate": ["adapter.head=train"]}  # fmt: skip
    load("g.yaml", overrides=[key, *more.get(name, [])])


def test_a_classification_has_no_completions(refusal: Refusal) -> None:
    assert refusal(MINIMAL, "data.completion_only=false") == [
        "on the command line: data.completion_only is false, but model.task is classification: "
        "only causal-lm reads it; remove data.completion_only"
    ]


def test_a_value_of_the_file_stands_where_the_command_line_made_it_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (files("atoll.recipes") / "classify.yaml").read_text(encoding="utf-8")
    Path("classify.yaml").write_text(text)
    loaded = load("classify.yaml", overrides=["adapter.head=train", "train.optimizer=sgd"])
    assert loaded.experiment.adapter.refit_every is None
    assert loaded.experiment.train.adam_beta2 == 0.999
    assert loaded.notes == ()
    Path("again.yaml").write_text(dump(loaded.experiment))
    assert load("again.yaml").experiment == loaded.experiment


def test_rounds_in_which_nothing_trains_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.yaml").write_text(MINIMAL)
    loaded = load("f.yaml", overrides=["adapter.method=none", "federation.num_rounds=7"])
    assert loaded.experiment.federation.num_rounds == 0
    assert loaded.notes == (
        "adapter.method is none and the head is solved from statistics: nothing trains in rounds, "
        "so that federation.num_rounds is 0 instead of 7",
    )
    trained = load("f.yaml", overrides=["adapter.method=none", "adapter.head=train"])
    assert (trained.experiment.federation.num_rounds, trained.notes) == (20, ())


def test_a_language_model_without_an_adapter_trains_nothing(refusal: Refusal) -> None:
    text = "model: {name_or_path: a, task: causal-lm}\ndata: {path: b}\n"
    assert refusal(text, "adapter.method=none") == [
        "on the command line: adapter.method is none, but model.task is causal-lm, which has no "
        "head: nothing would train; use lora, bitfit or full"
    ]


READERS = {
    "adapter.r=4": "only lora reads it",
    "adapter.lora_alpha=4": "only lora reads it",
    "adapter.lora_dropout=0.5": "only lora reads it",
    "adapter.use_rslora=true": "only lora reads it",
    "adapter.layers_to_transform=[1]": "only lora reads it",
    "adapter.rank_pattern={query: 2}": "only lora reads it",
    "adapter.target_modules=[query]": "only lora, ia3 and bottleneck read it",
    "adapter.feedforward_modules=[dense]": "only ia3 reads it",
    "adapter.placement=houlsby": "only bottleneck reads it",
    "adapter.reduction_factor=4": "only bottleneck reads it",
    "adapter.activation=gelu": "only bottleneck reads it",
    "adapter.num_layers=1": "only layers reads it",
    "adapter.config={r: 4}": "only an adapter of PEFT's reads it",
}
METHODS = {
    "only lora reads it": ["lora"],
    "only lora, ia3 and bottleneck read it": ["lora", "ia3", "bottleneck"],
    "only ia3 reads it": ["ia3"],
    "only bottleneck reads it": ["bottleneck"],
    "only layers reads it": ["layers"],
    "only an adapter of PEFT's reads it": ["dora", "vera"],
}


@pytest.mark.parametrize("method", ["lora", "ia3", "bottleneck", "layers", "bitfit", "full", "dora",
                                    "vera", "none"])  # fmt: skip
@pytest.mark.parametrize("key", READERS)
def test_a_setting_of_another_method_is_refused(refusal: Refusal, key: str, method: str) -> None:
    """In the file it has a line; whoever changes the method there changes its settings too."""
    name, _, value = key.partition("=")
    text = f"{MINIMAL}adapter:\n  method: {method}\n  {name.removeprefix('adapter.')}: {value}\n"
    if method in METHODS[READERS[key]]:
        Path("f.yaml").write_text(text)
        assert load("f.yaml").experiment.adapter.method == method
        return
    shown = {"[query]": '["query"]', "[dense]": '["dense"]', "{r: 4}": '{"r": 4}',
             "{query: 2}": '{"query": 2}'}  # fmt: skip
    value = shown.get(value, value)
    (told,) = refusal(text)
    assert told == (
        f"f.yaml:5: {name} is {value}, but adapter.method is {method}: {READERS[key]}; "
        f"remove {name}"
    )


def test_settings_of_peft_are_left_out_where_the_command_line_chose_another_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.yaml").write_text(f"{MINIMAL}adapter: {{method: vera, config: {{r: 4}}}}\n")
    kept = load("f.yaml", overrides=["adapter.config.d_initial=0.2"]).experiment.adapter
    assert dict(kept.config) == {"r": 4, "d_initial": 0.2}
    assert dict(load("f.yaml", overrides=["adapter.method=ia3"]).experiment.adapter.config) == {}
