"""What clients would have without federating, and with pooled data: the same model and passes.

local: each client trains on its own rows.   pooled: one client has all rows.
Both start where the federated run starts, take as many passes over a row as a row of the run is
expected to see, and solve their head in the same way from their own sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from atoll.core import Channel, Context, Failure, Request, State
from atoll.experiment.program import Heads, head_methods
from atoll.experiment.setup import Setup
from atoll.local.bench import Bench
from atoll.local.statistics import Labelled
from atoll.local.train import LocalRule, Trained, train
from atoll.models.objective import Example
from atoll.round import answer
from atoll.servers import average
from atoll.tree import subtract

__all__ = ["expected_passes", "local_models", "pooled_model"]


def expected_passes(setup: Setup, rounds: int) -> float:
    """How often `rounds` rounds of the federated run train on a row, on average."""
    settings = setup.experiment.train
    rate = setup.clients_per_round / len(setup.data.clients)
    if "train" not in setup.program.algorithms:
        return 0.0
    if settings.max_steps is None:
        return rounds * rate * settings.num_train_epochs
    batch = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    counts = [setup.data.counts[client].train for client in setup.data.clients]
    if not setup.data.made_up:
        # Packed rows are fewer than those of the data.
        counts = [len(setup.bench.examples(client, "train")) for client in setup.data.clients]
    # A pass over n rows is ceil(n / batch) steps, and the last of them may be smaller.
    seen = sum(settings.max_steps * n / -(-n // batch) for n in counts)
    return rounds * rate * seen / sum(counts)


def local_models(setup: Setup, passes: float) -> Iterator[tuple[str, State]]:
    """Each client's own model, a few at a time; a client whose training fails is left out."""
    # All passes are one round, over which the learning rate runs its whole course.
    bench = replace(setup.bench, num_rounds=1)
    heads = Heads()
    if setup.labelled is not None:
        # The run's own features, of which the first ones are known already.
        heads = head_methods(bench, setup.experiment.adapter, setup.labelled)
    clients, size = setup.data.clients, max(setup.bench.group_size, 1)
    for start in range(0, len(clients), size):
        group = [_context(setup, "local", client) for client in clients[start : start + size]]
        yield from _trained(setup, bench, heads, group, passes)


def pooled_model(setup: Setup, passes: float) -> State | None:
    """The model of one client that has everybody's training rows; None where training failed."""
    members = setup.data.clients

    def examples(client: str, split: str) -> Sequence[Example]:
        return [example for name in members for example in setup.bench.examples(name, split)]

    bench = replace(setup.bench, num_rounds=1, examples=examples)
    heads = Heads()
    if setup.labelled is not None:
        everyone = _of_members(setup.labelled, members)
        heads = head_methods(bench, setup.experiment.adapter, everyone)
    context = _context(setup, "pooled", "pool")
    return dict(_trained(setup, bench, heads, [context], passes)).get("pool")


def _trained(
    setup: Setup,
    bench: Bench,
    heads: Heads,
    contexts: Sequence[Context],
    passes: float,
) -> Iterator[tuple[str, State]]:
    """The models of clients that train in one stack, each with its head solved from its rows."""
    start = setup.start.server
    states = {context.client: _solved(heads, start, context) for context in contexts}
    rule = LocalRule(epochs=passes)
    if rule.epochs:
        server = setup.program.algorithms["train"].server
        requests = [
            Request(context, server.broadcast(state, context.client))
            for context in contexts
            if (state := states[context.client]) is not None
        ]
        for result in train(bench, requests, rule):
            if isinstance(result, Failure):
                states[result.client] = None
                continue
            context = result.request.context
            before = states[context.client]
            assert before is not None, "only clients with a state were asked"
            moved = _moved(before, result)
            # As in the run, a head that trains is not solved again.
            states[context.client] = moved if bench.train_head else _solved(heads, moved, context)
    yield from ((client, state) for client, state in states.items() if state is not None)


def _of_members(labelled: Labelled, members: Sequence[str]) -> Labelled:
    """The features of all members together, whoever is asked for."""

    def found(request: Request) -> tuple[Tensor, Tensor]:
        parts = [
            labelled(replace(request, context=request.context.at(client))) for client in members
        ]
        return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])

    return found


def _context(setup: Setup, run: str, client: str) -> Context:
    return Context(setup.experiment.seed, run, 1, 0, (client,), 1, client)


def _moved(state: State, result: Trained) -> State:
    update = {"update": Channel(subtract(result.end, result.start))}
    return average().apply(result.request.context, state, update)


def _solved(heads: Heads, state: State, context: Context) -> State | None:
    """The state after the head was solved from this client's rows alone; None where it failed."""
    for algorithm in heads.sequence:
        broadcast = algorithm.server.broadcast(state, context.client)
        fold = algorithm.aggregator.init(algorithm.client.template(broadcast))
        (reply,) = answer(algorithm, [Request(context, broadcast)])
        if isinstance(reply, Failure):
            return None
        sums = algorithm.aggregator.finish(algorithm.aggregator.add(fold, reply.payload))
        state = algorithm.server.apply(context, state, sums)
    return state
