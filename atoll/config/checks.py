"""What no single value of the experiment file shows: values that do not fit each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from pydantic import JsonValue

from atoll.config.data import Data
from atoll.config.federation import Federation
from atoll.config.sections import Model, Train
from atoll.config.tasks import TASKS

__all__ = [
    "Problem",
    "Problems",
    "check_data",
    "check_federation",
    "check_later",
    "check_train",
]


class Problem(NamedTuple):
    """The key that a sentence is about, and the sentence."""

    path: str
    sentence: str


class Problems(ValueError):
    """Several problems at once, so that a file is corrected in one go."""

    def __init__(self, found: Iterable[Problem]) -> None:
        self.found = tuple(found)
        super().__init__("\n".join(problem.sentence for problem in self.found))


def check_data(data: Data, *, model: Model | None) -> Iterator[Problem]:
    """Options of one task are refused for another; no model means that it is wrong itself."""
    packs = model is None or (TASKS[model.task].generates and not TASKS[model.task].prefers)
    if data.packing and model and not packs:
        yield Problem(
            "data.packing",
            f"data.packing is true, but model.task is {model.task}: only causal-lm packs rows; "
            "remove data.packing",
        )
    scale = data.label_scale
    if scale is not None and scale.deviation <= 1e-12 * abs(scale.mean):
        yield Problem(
            "data.label_scale.deviation",
            f"data.label_scale.deviation is {scale.deviation:g}, and beside a mean of "
            f"{scale.mean:g} nothing but rounding; subtract a constant from the labels",
        )
    for index, label in enumerate(data.labels or ()):
        if not label:
            yield Problem(f"data.labels.{index}", f"data.labels.{index} is empty; name the label")
        elif data.labels and label in data.labels[:index]:
            first = data.labels.index(label)
            yield Problem(
                f"data.labels.{index}",
                f"data.labels.{index} is {label}, as data.labels.{first} is; name each label once",
            )


def check_train(train: Train) -> Iterator[Problem]:
    """Options that the chosen optimiser or schedule would ignore."""
    if train.momentum and train.optimizer != "sgd":
        yield Problem(
            "train.momentum",
            f"train.momentum is {train.momentum:g}, but train.optimizer is {train.optimizer}: only "
            "sgd uses it; remove it, or use optimizer: sgd",
        )
    weights = train.class_weights if isinstance(train.class_weights, Mapping) else {}
    for label, weight in weights.items():
        if weight <= 0:
            yield Problem(
                f"train.class_weights.{label}",
                f"train.class_weights.{label} is {weight:g}; a weight is greater than 0",
            )
    if train.class_balance and train.class_weights not in (None, "balanced-per-client"):
        yield Problem(
            "train.class_balance",
            "train.class_balance is true, but train.class_weights weighs classes in another way; "
            "remove train.class_balance",
        )
    if train.warmup_steps and train.lr_scheduler_type == "constant":
        yield Problem(
            "train.warmup_steps",
            f"train.warmup_steps is {train.warmup_steps}, but train.lr_scheduler_type is constant, "
            "which has no warm-up; use constant_with_warmup, linear or cosine",
        )


def check_federation(federation: Federation, *, data: Data | None) -> Iterator[Problem]:
    """Numbers of clients; how many there are is known here only if the partition says so."""
    asked, needed = federation.clients_per_round, federation.min_clients
    if asked is not None and federation.fraction_train is not None:
        yield Problem(
            "federation.fraction_train",
            f"federation.clients_per_round is {asked} and federation.fraction_train is "
            f"{federation.fraction_train:g}: both say how many clients a round asks; keep one",
        )
    if asked is not None and needed > asked:
        yield Problem(
            "federation.min_clients",
            f"federation.min_clients is {needed}, but a round asks only {asked} clients "
            "(federation.clients_per_round): no round would count; lower min_clients",
        )
    partition = data.partition if data else None
    total = partition.arguments.get("num_clients") if partition else None
    # A number below 1 is refused by the partition itself.
    if not isinstance(total, int) or total < 1:
        return
    yield from _check_share(federation, total)
    if asked is not None and asked > total:
        yield Problem(
            "federation.clients_per_round",
            f"federation.clients_per_round is {asked}, but data.partition makes only {total} "
            f"clients; use at most {total}",
        )
    if needed > total:
        yield Problem(
            "federation.min_clients",
            f"federation.min_clients is {needed}, but data.partition makes only {total} clients; "
            f"use at most {total}",
        )


def _check_share(federation: Federation, total: int) -> Iterator[Problem]:
    share = federation.fraction_train
    if share is None or federation.clients_per_round is not None:
        return
    needed, cohort = federation.min_clients, federation.cohort(total)
    if cohort < needed <= total:
        yield Problem(
            "federation.min_clients",
            f"federation.min_clients is {needed}, but a round asks only {cohort} of {total} "
            f"clients (federation.fraction_train {share:g}): no round would count; lower "
            "min_clients",
        )


def check_later(section: Mapping[str, JsonValue], *, name: str) -> Iterator[Problem]:
    """A section that this version refuses: ignoring it would promise what is not done."""
    for key in section:
        yield Problem(
            f"{name}.{key}",
            f"{name}.{key} is set, but {name} is not available in this version; remove it",
        )
