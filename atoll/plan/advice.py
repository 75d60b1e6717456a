"""What to change where a run does not fit: keys, values, and what they save."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from atoll.adapters.blocks import block_lists
from atoll.experiment.setup import Setup
from atoll.plan.clock import Seconds
from atoll.plan.estimate import Knobs, Memory

__all__ = ["LONG", "Advice", "disk_advice", "memory_advice", "time_advice"]

LONG = 3600.0
"""Seconds of a run from which on shorter ways are told."""
WORTH = 0.2
"""The share of a run's time from which on a part is worth leaving out."""


@dataclass(frozen=True)
class Advice:
    """A change to the file: `values` as they are typed after `atoll run FILE`.

    leaves: bytes or seconds that the run takes with it; None where that is not known.
    """

    need: Literal["memory", "disk", "time"]
    values: tuple[str, ...]
    why: str
    leaves: float | None = None


def memory_advice(setup: Setup, limit: int, use: Callable[[Knobs], Memory]) -> Iterator[Advice]:
    """Changes that make a run fit into `limit` bytes: the gentlest of each kind that does.

    use: what the run takes under other settings.
    """
    fitting = False
    for tries in (_groups, _measured, _batches, _together, _shorter, _unpooled):
        for knobs, values, why in tries(setup):
            leaves = use(knobs).total
            if leaves <= limit:
                fitting = True
                yield Advice("memory", values, why, leaves)
                break
    if not fitting:
        yield from _smaller(setup)


Try = tuple[Knobs, tuple[str, ...], str]


def _groups(setup: Setup) -> Iterator[Try]:
    for size in range(setup.bench.group_size - 1, 0, -1):
        yield Knobs(clients=size), (f"train.group_size={size}",), "fewer clients in one pass"


def _measured(setup: Setup) -> Iterator[Try]:
    now = setup.experiment.train.per_device_eval_batch_size
    for size in _halves(now):
        values = (f"train.per_device_eval_batch_size={size}",)
        yield Knobs(measured=size / now), values, "smaller batches of evaluation"


def _batches(setup: Setup) -> Iterator[Try]:
    train = setup.experiment.train
    for size in _halves(train.per_device_train_batch_size):
        factor = train.per_device_train_batch_size // size
        if factor * size == train.per_device_train_batch_size:
            yield (
                Knobs(rows=1 / factor),
                _smaller_batch(setup, factor),
                ("the same step from smaller batches"),
            )


def _smaller_batch(setup: Setup, factor: int) -> tuple[str, ...]:
    train = setup.experiment.train
    return (
        f"train.per_device_train_batch_size={train.per_device_train_batch_size // factor}",
        f"train.gradient_accumulation_steps={train.gradient_accumulation_steps * factor}",
    )


def _together(setup: Setup) -> Iterator[Try]:
    train = setup.experiment.train
    rows, measured = train.per_device_train_batch_size, train.per_device_eval_batch_size
    values = (
        "train.group_size=1", *_smaller_batch(setup, rows), "train.per_device_eval_batch_size=1"
    )  # fmt: skip
    yield Knobs(1, 1 / rows, 1 / measured), values, "one row at a time"


def _shorter(setup: Setup) -> Iterator[Try]:
    now = setup.experiment.data.max_length
    for length in _halves(now):
        why = "shorter rows: what is cut off is not learnt"
        yield Knobs(length=length / now), (f"data.max_length={length}",), why


def _unpooled(setup: Setup) -> Iterator[Try]:
    baselines = setup.experiment.evaluate.baselines
    if "pooled" in baselines:
        kept = ",".join(name for name in baselines if name != "pooled")
        yield Knobs(pooled=False), (f"evaluate.baselines=[{kept}]",), "no model of all rows"


def _smaller(setup: Setup) -> Iterator[Advice]:
    """No size of batches is small enough: less must train, or of a smaller model."""
    if not setup.experiment.train.gradient_checkpointing and block_lists(setup.base.model):
        why = "blocks are computed again in backward, and not kept for it"
        yield Advice("memory", ("train.gradient_checkpointing=true",), why)
    if setup.experiment.adapter.method == "full":
        yield Advice("memory", ("adapter.method=lora",), "a small adapter trains, not the model")
    if setup.experiment.model.dtype in ("auto", "float32"):
        yield Advice("memory", ("model.dtype=bfloat16",), "weights in half of the bytes")
    if setup.experiment.train.optimizer == "adamw":
        yield Advice("memory", ("train.optimizer=sgd",), "no moments of the optimiser")
    yield Advice("memory", ("model.name_or_path=...",), "a smaller model, or a machine with more")


def disk_advice(setup: Setup, parts: dict[str, int]) -> Iterator[Advice]:
    """What takes the most room, and how to do without it."""
    if setup.experiment.evaluate.load_best:
        why = "no checkpoint of the best round"
        yield Advice("disk", ("evaluate.load_best=false",), why)
    if parts["client_state"] > sum(parts.values()) / 2:
        why = "an algorithm whose clients keep nothing between rounds, and no stage with a memory"
        yield Advice("disk", ("federation.algorithm=fedavg", "federation.stages=[]"), why)
    yield Advice("disk", ("output_dir=...",), "another disk")


def time_advice(setup: Setup, spent: dict[str, Seconds], cores: int) -> Iterator[Advice]:
    """The parts that take long, and how to do with less of them."""
    whole = sum(one.wall for one in spent.values())
    evaluate = setup.experiment.evaluate
    for name in evaluate.baselines:
        took = spent[name].wall
        if took > WORTH * whole:
            kept = ",".join(other for other in evaluate.baselines if other != name)
            why = f"no {name} model to compare with"
            yield Advice("time", (f"evaluate.baselines=[{kept}]",), why, whole - took)
    measured = spent["evaluation"].wall
    rounds = setup.experiment.federation.num_rounds
    if measured > WORTH * whole and evaluate.every < rounds:
        values = (f"evaluate.every={rounds}",)
        left = whole - measured * (1 - 2 * evaluate.every / (rounds + evaluate.every))
        yield Advice("time", values, "measured before the first and after the last round", left)
    if cores > 1 and setup.experiment.federation.runtime.name == "inprocess":
        values = (f"federation.runtime={{name: processes, workers: {cores}}}",)
        training = spent["training"].wall
        left = whole - training * (1 - 1 / cores)
        yield Advice("time", values, "clients on several cores", left)
    if rounds > 1:
        values = (f"federation.num_rounds={max(1, int(rounds * LONG / whole))}",)
        yield Advice("time", values, "about an hour", LONG)


def _halves(size: int) -> Iterator[int]:
    while size > 1:
        size //= 2
        yield size
