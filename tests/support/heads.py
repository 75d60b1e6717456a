"""Head algorithms on plain feature matrices: rows given to clients, sums folded, heads solved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from atoll.adapters.dense import linear_site
from atoll.adapters.stacked import StackedModel
from atoll.config.sections import Train
from atoll.core import Algorithm, Context, Failure, Request, State
from atoll.local.bench import Bench
from atoll.models.classification import classification
from atoll.models.objective import Example
from tests.support.models import word_pieces

__all__ = ["Rows", "exchange", "head_bench", "rows_of", "split"]

Rows = Mapping[str, tuple[Tensor, Tensor]]
"""Features with a trailing 1 where the head has a bias, and labels, of each client."""


class _Head(nn.Module):
    def __init__(self, width: int, labels: int, bias: bool) -> None:
        super().__init__()
        self.classifier = nn.Linear(width, labels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(x)


def head_bench(width: int, labels: int, *, bias: bool, clients: Rows) -> Bench:
    """A bench whose model is the head alone; examples carry labels only."""
    model = _Head(width, labels, bias).requires_grad_(False)
    names = [f"label{i}" for i in range(labels)]
    examples = {
        client: [Example(np.array([2]), np.array([int(label)])) for label in y]
        for client, (_, y) in clients.items()
    }
    return Bench(
        model=StackedModel(model, [linear_site("classifier", model.classifier, last=True)]),
        objective=classification(word_pieces(), labels=names, max_length=8),
        examples=lambda client, split: examples[client],
        settings=Train(),
        head="classifier",
        train_head=False,
        group_size=1,
        num_rounds=1,
        device=torch.device("cpu"),
    )


def rows_of(count: int, width: int, labels: int, *, seed: int, skew: float = 0.0) -> Any:
    """Gaussian classes (numpy, float64); labels become rarer with `skew`; all of them occur."""
    draw = np.random.default_rng(seed)
    share = np.exp(-skew * np.arange(labels))
    y = draw.choice(labels, size=count, p=share / share.sum())
    y[:labels] = np.arange(labels)
    centres = draw.normal(size=(labels, width))
    mix = draw.normal(size=(width, width)) / np.sqrt(width)
    x = centres[y] + draw.normal(size=(count, width)) @ mix
    return np.asarray(x, dtype=np.float64), y


def split(x: np.ndarray, y: np.ndarray, owners: Sequence[int], *, bias: bool) -> Rows:
    """Rows to their owners; a client that owns none is no client."""
    owned = np.asarray(owners)
    found = {}
    for owner in sorted(set(owned.tolist())):
        mine = torch.from_numpy(x[owned == owner]).float()
        if bias:
            mine = torch.cat([mine, torch.ones(len(mine), 1)], dim=1)
        found[f"client{owner}"] = (mine, torch.from_numpy(y[owned == owner]))
    return found


def exchange(algorithm: Algorithm, state: State, clients: Rows) -> State:
    """One exchange with all clients, as a round makes it."""
    names = tuple(clients)
    context = Context(0, "run", 0, 0, names, len(names))
    requests = [
        Request(context.at(name), algorithm.server.broadcast(state, name)) for name in names
    ]
    fold = algorithm.aggregator.init(algorithm.client.template(requests[0].payload))
    for reply in algorithm.client.work(requests):
        assert not isinstance(reply, Failure)
        fold = algorithm.aggregator.add(fold, reply.payload)
    return algorithm.server.apply(context, state, algorithm.aggregator.finish(fold))


def labelled(clients: Rows) -> Callable[[Request], tuple[Tensor, Tensor]]:
    """What `feature_cache` gives, from the matrices."""
    return lambda request: clients[request.context.client]
