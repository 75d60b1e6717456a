"""What clients would have without federating, and with pooled data: the same model and passes.

local: each client trains on its own rows.   pooled: one client has all rows.
Both start where the federated run starts, take as many passes over a row as a row of the run is
expected to see, and solve their head in the same way from their own sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from atoll.core import Algorithm, Channel, Context, Failure, Reply, Request, State
from atoll.experiment.program import Heads, head_methods
from atoll.experiment.setup import Setup
from atoll.local.bench import Bench
from atoll.local.statistics import Labelled
from atoll.local.train import LocalRule, Trained, train
from atoll.models.objective import Example
from atoll.round import answer
from atoll.servers import average
from atoll.tree import subtract

__all__ = ["POOLED", "arm", "expected_passes"]

POOLED = "pooled"


def expected_passes(setup: Setup) -> float:
    """How often the federated run trains on a row, on average."""
    federation, settings = setup.experiment.federation, setup.experiment.train
    rate = setup.clients_per_round / len(setup.data.clients)
    if "train" not in setup.program.algorithms:
        return 0.0
    if settings.max_steps is None:
        return federation.num_rounds * rate * settings.num_train_epochs
    batch = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    counts = [count.train for count in setup.data.counts.values()]
    # A pass over n rows is ceil(n / batch) steps, and the last of them may be smaller.
    seen = sum(settings.max_steps * n / -(-n // batch) for n in counts)
    return federation.num_rounds * rate * seen / sum(counts)


def arm(
    setup: Setup, clients: Sequence[str], *, tick: Callable[[str], None]
) -> Iterator[tuple[str, State]]:
    """Each client's own model, a few at a time; a client whose training fails is left out."""
    bench = _with_pool(setup)
    heads = Heads()
    if setup.labelled is not None:
        heads = head_methods(bench, setup.experiment.adapter, _with_members(setup, setup.labelled))
    rule = LocalRule(epochs=expected_passes(setup))
    for start in range(0, len(clients), max(setup.bench.group_size, 1)):
        group = clients[start : start + max(setup.bench.group_size, 1)]
        states = {client: _solved(setup, heads, setup.start.server, client) for client in group}
        if rule.epochs:
            requests = [_request(setup, states[client], client) for client in group]
            for result in train(bench, requests, rule):
                client = result.client if isinstance(result, Failure) else (
                    result.request.context.client)  # fmt: skip
                if isinstance(result, Failure):
                    del states[client]
                else:
                    states[client] = _moved(states[client], result)
                    states[client] = _solved(setup, heads, states[client], client)
                tick(client)
        yield from states.items()


def _with_members(setup: Setup, labelled: Labelled) -> Labelled:
    """The run's own features, whose first ones are known already; the pool's are its members'."""

    def found(request: Request) -> tuple[Tensor, Tensor]:
        if request.context.client != POOLED:
            return labelled(request)
        parts = [
            labelled(replace(request, context=request.context.at(client)))
            for client in setup.data.clients
        ]
        return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])

    return found


def _with_pool(setup: Setup) -> Bench:
    """The same bench, where the client named `pooled` has everybody's training rows.

    All passes are one round, over which the learning rate runs its whole course.
    """
    inner = setup.bench

    def examples(client: str, split: str) -> Sequence[Example]:
        if client != POOLED:
            return inner.examples(client, split)
        return [example for name in setup.data.clients for example in inner.examples(name, split)]

    return replace(inner, examples=examples, num_rounds=1)


def _context(setup: Setup, client: str) -> Context:
    run = POOLED if client == POOLED else "local"
    return Context(setup.experiment.seed, run, 1, 0, (client,), 1, client)


def _request(setup: Setup, state: State, client: str) -> Request:
    server = setup.program.algorithms["train"].server
    return Request(_context(setup, client), server.broadcast(state, client))


def _moved(state: State, result: Trained) -> State:
    update = {"update": Channel(subtract(result.end, result.start))}
    return average().apply(result.request.context, state, update)


def _solved(setup: Setup, heads: Heads, state: State, client: str) -> State:
    """The state after the head was solved from this client's rows alone."""
    for algorithm in heads.sequence(first="prototypes" not in state):
        state = _alone(algorithm, state, _context(setup, client))
    return state


def _alone(algorithm: Algorithm, state: State, context: Context) -> State:
    broadcast = algorithm.server.broadcast(state, context.client)
    fold = algorithm.aggregator.init(algorithm.client.template(broadcast))
    for reply in answer(algorithm, [Request(context, broadcast)]):
        if isinstance(reply, Reply):
            fold = algorithm.aggregator.add(fold, reply.payload)
    return algorithm.server.apply(context, state, algorithm.aggregator.finish(fold))
