"""What each client counts for in a mean.

Work that sends channel `weight` has said which means it weighs; the stage sets its value. Where
work sends none, the stage adds it, and every mean without a weight of its own gets it: one rule for
the cohort, so that a second trained tree is averaged as `update` is.
Encoding reads no values, so that the template of a reply can pass through it as well.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from atoll.core import Channel, Context, Payload, Stage, Tree
from atoll.errors import PayloadError
from atoll.stages.received import describe, received

__all__ = ["by_examples", "uniform"]

WEIGHT = "weight"


def by_examples() -> Stage:
    """Weigh clients by their examples, n_k / n.

    Source: McMahan, Moore, Ramage, Hampson, Agüera y Arcas, Communication-Efficient Learning of
    Deep Networks from Decentralized Data (AISTATS 2017, arXiv 1602.05629), Algorithm 1.
    """

    def encode(context: Context, payload: Payload, state: Tree) -> tuple[Payload, Tree]:
        (count,) = payload["examples"].tree.values()
        # A copy, because safetensors refuses two names for one memory.
        return _weighed(payload, count.to(torch.float32, copy=True)), state

    return Stage("by_examples", ("examples",), encode, weighs="examples")


def uniform() -> Stage:
    """Every client counts for one, however much data it holds."""

    def encode(context: Context, payload: Payload, state: Tree) -> tuple[Payload, Tree]:
        return _weighed(payload, torch.ones(())), state

    def decode(context: Context, payload: Payload, like: Payload) -> Payload:
        value = received(payload, WEIGHT).get("value")
        if value is None or value.numel() != 1 or not value.is_floating_point():
            raise PayloadError(f"the weight is {describe(value)}, expected float32[]")
        # Without a client's name the payload is the sum of the cohort.
        low, high = (1, 1) if context.client else (0, len(context.cohort))
        if not low <= float(value) <= high:
            expected = "1" if low == high else f"at most {high}, one for each client"
            raise PayloadError(
                f"the weight is {float(value):g}, expected {expected}: all clients count the same"
            )
        return payload

    return Stage("uniform", (), encode, decode, weighs="uniform")


def _weighed(payload: Payload, value: Tensor) -> Payload:
    weight = Channel({"value": value}, reduce="sum")
    if WEIGHT in payload:
        return {**payload, WEIGHT: weight}
    weighed = {
        name: replace(channel, weight=WEIGHT)
        if channel.reduce == "mean" and channel.weight is None
        else channel
        for name, channel in payload.items()
    }
    return {**weighed, WEIGHT: weight}
