"""Values that do not fit each other, word for word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from atoll.config import load

Refusal = Callable[..., list[str]]
MINIMAL = "model: {name_or_path: a}\ndata:\n  path: b\n"


@pytest.mark.parametrize(
    ("lines", "messages"),
    [
        (
            "federation:\n  clients_per_round: 2\n  min_clients: 3",
            [
                "f.yaml:6: federation.min_clients is 3, but a round asks only 2 clients "
                "(federation.clients_per_round): no round would count; lower min_clients"
            ],
        ),
        (
            "federation:\n  clients_per_round: 2\n  fraction_train: 0.5",
            [
                "f.yaml:6: federation.clients_per_round is 2 and federation.fraction_train is "
                "0.5: both say how many clients a round asks; keep one"
            ],
        ),
        (
            "  partition: {num_clients: 4}\nfederation:\n  clients_per_round: 5",
            [
                "f.yaml:6: federation.clients_per_round is 5, but data.partition makes only 4 "
                "clients; use at most 4"
            ],
        ),
        (
            "  partition: {num_clients: 4}\nfederation:\n  min_clients: 5",
            [
                "f.yaml:6: federation.min_clients is 5, but data.partition makes only 4 clients; "
                "use at most 4"
            ],
        ),
        (
            "  partition: {num_clients: 4}\nfederation:\n  fraction_train: 0.25\n  min_clients: 3",
            [
                "f.yaml:7: federation.min_clients is 3, but a round asks only 1 of 4 clients "
                "(federation.fraction_train 0.25): no round would count; lower min_clients"
            ],
        ),
        (
            "adapter: {method: none, head: train, train_head: false}",
            [
                "f.yaml:4: adapter.train_head is false, but adapter.head is train and "
                "adapter.method is none: nothing would train; remove adapter.train_head, or solve "
                "the head (head: lda)"
            ],
        ),
        (
            "train:\n  momentum: 0.9\n  warmup_steps: 3",
            [
                "f.yaml:5: train.momentum is 0.9, but train.optimizer is adamw: only sgd uses it; "
                "remove it, or use optimizer: sgd",
                "f.yaml:6: train.warmup_steps is 3, but train.lr_scheduler_type is constant, which "
                "has no warm-up; use constant_with_warmup, linear or cosine",
            ],
        ),
        (
            "adapter: {target_modules: '('}",
            [
                'f.yaml:4: adapter.target_modules is "(": not a regular expression (missing ), '
                "unterminated subpattern at position 0); use all-linear, a list of module names, "
                "or a regular expression"
            ],
        ),
        (
            "  packing: true",
            [
                "f.yaml:4: data.packing is true, but model.task is classification: only causal-lm "
                "packs rows; remove data.packing"
            ],
        ),
        (
            "devices: {a: 1}",
            ["f.yaml:4: devices.a is set, but devices is not available in this version; remove it"],
        ),
    ],
)
def test_values_that_do_not_fit_each_other(
    refusal: Refusal, lines: str, messages: list[str]
) -> None:
    assert refusal(f"{MINIMAL}{lines}\n") == messages


@pytest.mark.parametrize("head", ["lda", "ridge", "means", "logistic"])
def test_a_solved_head_needs_a_classification(refusal: Refusal, head: str) -> None:
    text = f"{MINIMAL}adapter: {{head: {head}}}\n"
    assert refusal(text, "model.task=causal-lm") == [
        f"f.yaml:4: adapter.head is {head}, but model.task is causal-lm, which has no head "
        "that can be solved from statistics; remove adapter.head"
    ]


def test_what_only_lora_reads_is_refused_elsewhere(refusal: Refusal) -> None:
    (told,) = refusal(f"{MINIMAL}adapter: {{method: bitfit, lora_alpha: 64}}\n")
    assert told.startswith(
        "f.yaml:4: adapter.lora_alpha is 64, but adapter.method is bitfit: only lora"
    )


def test_what_the_command_line_made_idle_is_set_back(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(f"{MINIMAL}adapter: {{lora_alpha: 64}}\n")
    assert load(path, overrides=["adapter.method=bitfit"]).experiment.adapter.lora_alpha == 16
