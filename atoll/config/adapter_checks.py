"""What no single value of the adapter's section shows."""

from __future__ import annotations

import re
from collections.abc import Iterator

from atoll.config.adapter import Adapter
from atoll.config.checks import Problem
from atoll.config.peft_fields import check_peft_config
from atoll.config.peft_methods import PEFT_METHODS
from atoll.config.sections import Model
from atoll.config.tasks import TASKS

__all__ = ["check_adapter"]


def check_adapter(adapter: Adapter, *, model: Model | None) -> Iterator[Problem]:
    """Rank, targets, settings of PEFT, and the head; no model means that it is wrong itself."""
    yield from _check_head(adapter, model)
    if adapter.method == "lora" and adapter.r == 0:
        yield Problem(
            "adapter.r",
            "adapter.r is 0: a LoRA of rank 0 trains nothing; use r >= 1, or adapter.method: none",
        )
    every = "all-linear, a list of module names, or a regular expression"
    yield from _check_pattern("adapter.target_modules", adapter.target_modules, instead=every)
    for name, value in (
        ("feedforward_modules", adapter.feedforward_modules),
        ("layers_pattern", adapter.layers_pattern),
    ):
        yield from _check_pattern(f"adapter.{name}", value, instead="module names")
    for name in (*adapter.rank_pattern, *adapter.alpha_pattern):
        key = "rank_pattern" if name in adapter.rank_pattern else "alpha_pattern"
        yield from _check_pattern(f"adapter.{key}", name, instead="module names")
    yield from _check_layers(adapter)
    yield from _check_feedforward(adapter)
    if (
        adapter.method == "bottleneck"
        and adapter.target_modules
        and adapter.placement != "pfeiffer"
    ):
        yield Problem(
            "adapter.placement",
            f"adapter.placement is {adapter.placement}, but adapter.target_modules already says "
            "where the bottlenecks stand; remove one of them",
        )
    if adapter.method in PEFT_METHODS:
        yield from check_peft_config(adapter.method, adapter.config)


def _check_head(adapter: Adapter, model: Model | None) -> Iterator[Problem]:
    if adapter.method == "none" and model and not TASKS[model.task].head:
        yield Problem(
            "adapter.method",
            f"adapter.method is none, but model.task is {model.task}, which has no head: nothing "
            "would train; use lora, bitfit or full",
        )
    if adapter.method == "none" and adapter.head == "train" and adapter.train_head is False:
        yield Problem(
            "adapter.train_head",
            "adapter.train_head is false, but adapter.head is train and adapter.method is none: "
            "nothing would train; remove adapter.train_head, or solve the head (head: lda)",
        )
    solved = adapter.head in ("lda", "ridge", "means", "logistic")
    if solved and model and not TASKS[model.task].solved:
        yield Problem(
            "adapter.head",
            f"adapter.head is {adapter.head}, but model.task is {model.task}, which has no head "
            "that can be solved from statistics; remove adapter.head",
        )
    elif solved and adapter.head != "ridge" and model and not TASKS[model.task].classes:
        yield Problem(
            "adapter.head",
            f"adapter.head is {adapter.head}, but model.task is {model.task}, whose rows have no "
            "class: only ridge solves its head; use ridge, or train",
        )


def _check_pattern(
    path: str, value: str | tuple[str, ...] | None, *, instead: str
) -> Iterator[Problem]:
    patterns = value or ()
    # Names in a list are taken as they are, but the names of lists of layers are patterns too.
    if isinstance(value, str) or path != "adapter.layers_pattern":
        patterns = (value,) if isinstance(value, str) else ()
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            yield Problem(
                path, f'{path} is "{pattern}": not a regular expression ({error}); use {instead}'
            )


def _check_layers(adapter: Adapter) -> Iterator[Problem]:
    """As PEFT's own LoraConfig, which lets layers be chosen only beside names."""
    if adapter.layers_to_transform is None:
        if adapter.layers_pattern is not None:
            yield Problem(
                "adapter.layers_pattern",
                "adapter.layers_pattern is set, but adapter.layers_to_transform is not: nothing "
                "is counted; set it too, or remove adapter.layers_pattern",
            )
        return
    if isinstance(adapter.target_modules, str) and adapter.target_modules != "all-linear":
        yield Problem(
            "adapter.layers_to_transform",
            "adapter.layers_to_transform stands beside a regular expression in "
            "adapter.target_modules, which already chooses layers; keep one of them",
        )


def _check_feedforward(adapter: Adapter) -> Iterator[Problem]:
    targets, inside = adapter.target_modules, adapter.feedforward_modules
    if adapter.method != "ia3" or not isinstance(targets, tuple) or not isinstance(inside, tuple):
        return
    odd = [name for name in inside if name not in targets]
    if odd:
        yield Problem(
            "adapter.feedforward_modules",
            f"adapter.feedforward_modules names {odd[0]}, which is not in adapter.target_modules; "
            "name it in both",
        )
