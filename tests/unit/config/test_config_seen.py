"""Keys that only images, pairs or preferences read are refused for other tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from atoll.config import load

Refusal = Callable[..., list[str]]
PAIRS = {"train.temperature": "0.1", "train.learn_temperature": "true", "train.symmetric": "true"}
ANSWERS = {"train.dpo_beta": "0.2", "train.dpo_label_smoothing": "0.1"}
TEXTS = {"data.max_length": "7", "data.truncation": "false"}


@pytest.mark.parametrize(("task", "keys", "why"), [
    ("preference", PAIRS, "only embedding reads it"),
    ("classification", PAIRS, "only embedding reads it"),
    ("embedding", ANSWERS, "only preference reads it"),
    ("causal-lm", ANSWERS, "only preference reads it"),
    ("image-classification", TEXTS, "its rows have no text"),
    ("image-classification", {"model.pooling": "mean", "adapter.head_features": "8"},
     "it has no tokens to pool"),
    ("preference", {"data.completion_only": "false"}, "only causal-lm reads it"),
    ("preference", {"adapter.head": "lda"}, "which has no head that can be solved"),
    ("embedding", {"adapter.refit_every": "3"}, "it has no head that could be solved"),
])  # fmt: skip
def test_a_key_of_another_task(refusal: Refusal, task: str, keys: dict[str, str], why: str) -> None:
    text = f"model: {{name_or_path: a, task: {task}}}\ndata: {{path: b}}\n"
    for key, value in keys.items():
        (found, *_) = refusal(text, f"{key}={value}")
        assert found.startswith(f"on the command line: {key} is ")
        assert f"model.task is {task}" in found
        assert why in found


@pytest.mark.parametrize(("task", "keys"), [
    ("embedding", {**PAIRS, **TEXTS, "model.pooling": "last", "model.normalize": "false"}),
    ("preference", {**ANSWERS, **TEXTS}),
    ("image-classification", {"adapter.head": "ridge", "adapter.refit_every": "2",
                              "train.class_weights": "balanced"}),
])  # fmt: skip
def test_its_own_keys(
    task: str, keys: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.yaml").write_text(f"model: {{name_or_path: a, task: {task}}}\ndata: {{path: b}}\n")
    loaded = load("f.yaml", overrides=[f"{key}={value}" for key, value in keys.items()])
    assert loaded.experiment.model.task == task
    assert loaded.notes == ()


def test_preferences_are_not_packed(refusal: Refusal) -> None:
    text = "model: {name_or_path: a, task: preference}\ndata: {path: b, packing: true}\n"
    assert refusal(text) == [
        "f.yaml:2: data.packing is true, but model.task is preference: only causal-lm packs rows; "
        "remove data.packing"
    ]


@pytest.mark.parametrize("value", ["train.temperature=0", "train.dpo_beta=0",
                                   "train.dpo_label_smoothing=0.5"])  # fmt: skip
def test_numbers_without_a_meaning(refusal: Refusal, value: str) -> None:
    task = "preference" if "dpo" in value else "embedding"
    text = f"model: {{name_or_path: a, task: {task}}}\ndata: {{path: b}}\n"
    assert refusal(text, value)
