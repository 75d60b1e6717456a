"""Keys that a task reads, and those that another task would read, word for word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from atoll.config import load

Refusal = Callable[..., list[str]]
TASKS = (
    "classification", "causal-lm", "masked-lm", "token-classification", "regression",
    "multi-label-classification",
)  # fmt: skip


def _text(task: str) -> str:
    return f"model: {{name_or_path: a, task: {task}}}\ndata: {{path: b}}\n"


READ: dict[str, tuple[str, tuple[str, ...]]] = {
    "data.mlm_probability=0.3": ("it masks no tokens", ("masked-lm",)),
    "data.labels=[x]": (
        "its labels are numbers", tuple(task for task in TASKS if task != "regression"),
    ),
    "data.label_scale={mean: 4, deviation: 2}": ("only regression reads it", ("regression",)),
    "train.class_weights=balanced": (
        "its rows have no class", ("classification", "token-classification"),
    ),
    "train.class_balance=true": (
        "its rows have no class", ("classification", "token-classification"),
    ),
    "train.restricted=true": ("its rows have no class", ("classification",)),
    "data.truncation=false": ("its rows have no text", TASKS),
}  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("key", READ)
def test_keys_are_read_or_refused(refusal: Refusal, key: str, task: str) -> None:
    why, readers = READ[key]
    name = key.partition("=")[0]
    if task in readers:
        Path("f.yaml").write_text(_text(task))
        section, field = name.split(".")
        found = vars(vars(load("f.yaml", overrides=[key]).experiment)[section])[field]
        assert found != vars(vars(load("f.yaml").experiment)[section])[field]
        return
    (told,) = refusal(_text(task), key)
    assert told.startswith(f"on the command line: {name} is ")
    assert told.endswith(f", but model.task is {task}: {why}; remove {name}")


@pytest.mark.parametrize("task", ["regression", "multi-label-classification"])
@pytest.mark.parametrize("head", ["lda", "means", "logistic"])
def test_only_ridge_solves_what_has_no_class(refusal: Refusal, task: str, head: str) -> None:
    assert refusal(_text(task), f"adapter.head={head}") == [
        f"on the command line: adapter.head is {head}, but model.task is {task}, whose rows have "
        "no class: only ridge solves its head; use ridge, or train"
    ]
    (told,) = refusal(_text(task), "adapter.local_head=solved")
    assert told.endswith(f"model.task is {task}: its rows have no class; remove adapter.local_head")
    for allowed in ("ridge", "train"):
        Path("f.yaml").write_text(_text(task))
        assert load("f.yaml", overrides=[f"adapter.head={allowed}"]).notes == ()


def test_a_head_that_nothing_solves_is_trained(refusal: Refusal) -> None:
    assert refusal(_text("token-classification"), "adapter.head=ridge") == [
        "on the command line: adapter.head is ridge, but model.task is token-classification, which "
        "has no head that can be solved from statistics; remove adapter.head"
    ]
    Path("f.yaml").write_text(_text("token-classification"))
    settings = ["adapter.method=none", "train.head_learning_rate=0.1", "federation.num_rounds=3"]
    loaded = load("f.yaml", overrides=settings)
    assert (loaded.experiment.federation.num_rounds, loaded.notes) == (3, ())


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("{sea: 0}", "train.class_weights.sea is 0; a weight is greater than 0"),
        ("{sky: 2, sea: -1.5}", "train.class_weights.sea is -1.5; a weight is greater than 0"),
        (
            "heavy",
            'train.class_weights is "heavy"; expected one of balanced, balanced-per-client, a '
            "mapping, or null",
        ),
        (
            "{}",
            "train.class_weights is {}; expected one of balanced, balanced-per-client, a mapping, "
            "or null",
        ),
    ],
)
def test_class_weights_that_are_none(refusal: Refusal, value: str, told: str) -> None:
    text = f"{_text('classification')}train:\n  class_weights: {value}\n"
    assert refusal(text) == [f"f.yaml:4: {told}"]


def test_classes_are_weighed_in_one_way(refusal: Refusal) -> None:
    lines = "train: {class_balance: true, class_weights: balanced}\n"
    assert refusal(_text("classification") + lines) == [
        "f.yaml:3: train.class_balance is true, but train.class_weights weighs classes in another "
        "way; remove train.class_balance"
    ]
    for same in ("train.class_weights=balanced-per-client", "train.class_weights={1: 2, x: 0.5}"):
        Path("f.yaml").write_text(_text("classification"))
        assert load("f.yaml", overrides=[same]).notes == ()


@pytest.mark.parametrize("share", ["0", "1", "1.5", "-0.1"])
def test_a_share_of_masks(refusal: Refusal, share: str) -> None:
    (told,) = refusal(_text("masked-lm"), f"data.mlm_probability={share}")
    assert "data.mlm_probability is " in told
    assert "expected a number greater than 0 and less than 1" in told
