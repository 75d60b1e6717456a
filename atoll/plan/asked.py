"""Who is asked what, and when: the loop itself, over clients that answer nothing at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from atoll.core import (
    Aggregator,
    Algorithm,
    ClientWork,
    Context,
    Federation,
    Payload,
    Program,
    Reply,
    Request,
    Server,
    State,
    Task,
)
from atoll.experiment.setup import Setup
from atoll.round import federate

__all__ = ["Asked", "asked"]


@dataclass(frozen=True)
class Asked:
    """One exchange that a run will make."""

    algorithm: str
    kind: Literal["round", "exchange", "evaluation"]
    context: Context


def asked(setup: Setup) -> tuple[Asked, ...]:
    """Every exchange of a run, in order: cohorts are drawn as the run draws them."""
    named = setup.program.algorithms
    program = Program({n: _silent(one) for n, one in named.items()}, setup.program.order)
    federation = Federation(
        seed=setup.experiment.seed,
        run="federated",
        num_rounds=setup.experiment.federation.num_rounds,
        clients_per_round=setup.clients_per_round,
    )
    listener = _Listener(setup.data.clients, [])
    for _ in federate(program, listener, federation, replace(setup.start, server={})):
        pass
    return tuple(Asked(t.algorithm, named[t.algorithm].kind, t.context) for t in listener.tasks)


@dataclass(frozen=True)
class _Listener:
    """A runtime whose clients say nothing, and that remembers what they were asked."""

    roster: tuple[str, ...]
    tasks: list[Task]

    def call(self, tasks: Sequence[Task], clients: Sequence[str]) -> Iterator[Reply]:
        self.tasks.extend(tasks)
        yield from (Reply(client, {}) for _ in tasks for client in clients)


def _silent(algorithm: Algorithm) -> Algorithm:
    """An algorithm of the same kind that sends, computes and changes nothing."""

    def work(requests: Sequence[Request]) -> Iterator[Reply]:
        yield from ()

    def apply(context: Context, state: State, aggregate: Payload) -> State:
        return state

    return Algorithm(
        algorithm.name,
        ClientWork(algorithm.name, lambda broadcast: {}, work, ()),
        (),
        Aggregator("none", lambda like: {}, lambda state, reply: state, lambda state: {}),
        Server("none", lambda state: state, lambda state, client: {}, apply),
        algorithm.kind,
    )
