"""Local training as client work: what a reply of an adapter round holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from atoll.core import Channel, ClientWork, Failure, Payload, Reply, Request
from atoll.local.bench import Bench, trained_values
from atoll.local.check import check_rule
from atoll.local.train import LocalRule, Trained, train
from atoll.tree import Tree, subtract

__all__ = ["local_training", "scalar", "training_payload"]


def local_training(
    bench: Bench,
    *,
    name: str = "train",
    rule: LocalRule | None = None,
    reply: Callable[[Trained], Reply] | None = None,
    channels: Callable[[Tree], Payload] | None = None,
) -> ClientWork:
    """Client work that trains, and answers with `update`, `weight`, `examples` and `metrics`.

    Where the rule or the bench hides rows there are no `metrics`: a loss tells of rows, and nothing
    hides it.

    reply: makes another reply of what was trained (its payload starts from `training_payload`).
    channels: names the channels that such a reply adds, from the trained values' shapes.

    Raises:
        PrivacyError: when the rule hides rows that cannot be hidden.
    """
    rule = rule or LocalRule()
    rule = replace(rule, private=rule.private or bench.private)
    check_rule(bench, rule)
    told = rule.private is None

    def template(broadcast: Payload) -> Payload:
        values = trained_values(bench, broadcast)
        extra = channels(values) if channels else {}
        return {**_channels(values, 0, 0.0 if told else None), **extra}

    def work(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
        for result in train(bench, requests, rule):
            if isinstance(result, Failure):
                yield result
            elif reply is not None:
                yield reply(result)
            else:
                yield Reply(result.request.context.client, training_payload(result))

    sends = ("update", "weight", "examples", *(("metrics",) if told else ()))
    return ClientWork(name, template, work, (*sends, *(channels({}) if channels else ())))


def training_payload(result: Trained) -> Payload:
    """The channels of an adapter round; weights are 1 until a weighing stage sets them."""
    loss = result.loss if result.spends is None else None
    return _channels(subtract(result.end, result.start), result.examples, loss)


def _channels(update: Tree, examples: int, loss: float | None) -> Payload:
    found = {
        "update": Channel(update, "mean", weight="weight"),
        "weight": Channel({"value": scalar(1.0)}, "sum"),
        "examples": Channel({"count": scalar(examples)}, "sum"),
    }
    if loss is not None:
        found["metrics"] = Channel({"loss": scalar(loss)}, "mean", weight="examples")
    return found


def scalar(value: float) -> torch.Tensor:
    """One float32 number as a tensor."""
    return torch.tensor(float(value))
