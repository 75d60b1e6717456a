"""The smallest federated work: every client sends back as many values as it got.

All values differ: Flower stores what is equal once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from atoll import rng
from atoll.aggregators import mean
from atoll.core import (
    Algorithm,
    Channel,
    ClientWork,
    Failure,
    Payload,
    Program,
    Reply,
    Request,
    State,
)
from atoll.servers import average
from atoll.stages import uniform

__all__ = ["first_state", "program"]

TENSORS = 10


def first_state(values: int) -> State:
    """So many values, in ten tensors."""
    each = values // TENSORS
    return {
        "adapter": {
            f"layer.{i}.weight": torch.randn(each, generator=rng.generator(0, i))
            for i in range(TENSORS)
        }
    }


def program() -> Program:
    """One algorithm: FedAvg over values of the size of the model."""

    def template(broadcast: Payload) -> Payload:
        tree = broadcast["adapter"].tree
        return {"update": Channel({name: torch.empty_like(v) for name, v in tree.items()},
                                  weight="weight"),
                "weight": Channel({"value": torch.ones(())}, "sum")}  # fmt: skip

    def work(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
        for request in requests:
            tree = request.payload["adapter"].tree
            step = float(rng.derive(0, request.context.client) % 997)
            update = {name: value + step for name, value in tree.items()}
            weight = Channel({"value": torch.ones(())}, "sum")
            channel = Channel(update, weight="weight")
            yield Reply(request.context.client, {"update": channel, "weight": weight})

    client = ClientWork("plus-one", template, work, ("update", "weight"))
    algorithm = Algorithm("train", client, (uniform(),), mean(), average())
    return Program({"train": algorithm}, lambda number: ("train",) if number else ())
