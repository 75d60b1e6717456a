"""An algorithm, algorithms that take turns, and the question that a runtime carries to clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

from atoll.core.asked import Context, Failure, Reply
from atoll.core.check import check
from atoll.core.hidden import check_noised
from atoll.core.parts import Aggregator, ClientWork, Server, Stage
from atoll.core.payload import Payload
from atoll.core.progress import Position

__all__ = ["Algorithm", "Program", "Runtime", "Task", "question"]


@dataclass(frozen=True)
class Algorithm:
    """Client work, stages, aggregator, server: checked when built.

    kind: a `round` asks a sampled cohort; a statistics `exchange` and an `evaluation` ask every
        reachable client, and are counted apart.
    """

    name: str
    client: ClientWork
    stages: tuple[Stage, ...]
    aggregator: Aggregator
    server: Server
    kind: Literal["round", "exchange", "evaluation"] = "round"

    def __post_init__(self) -> None:
        check(self.name, self.client, self.stages, self.aggregator)
        check_noised(self.name, self.client, self.stages, self.aggregator, self.server)


@dataclass(frozen=True)
class Program:
    """Algorithms that take turns on one server state.

    order: round -> the names to run in it, in order; round 0 comes before any adapter round.
    """

    algorithms: Mapping[str, Algorithm]
    order: Callable[[int], tuple[str, ...]]


@dataclass(frozen=True)
class Task:
    """One question to clients; `algorithm` is a name that both sides know from the experiment file.

    folded: for each client, the exchange whose reply was folded last; the client commits that
    version of its state and drops the others.
    staleness: what a late answer weighs, for each round that it is late.
    sent: what travels to a client, where that can be less than the broadcast.
    """

    algorithm: str
    context: Context
    broadcast: Callable[[str], Payload]
    folded: Mapping[str, int]
    staleness: float = 1.0
    sent: Callable[[str], Payload] | None = None

    def travels(self, client: str) -> Payload:
        """What a client is sent."""
        return (self.sent or self.broadcast)(client)


def question(
    name: str, algorithm: Algorithm, context: Context, position: Position, staleness: float
) -> Task:
    """What `algorithm`, known as `name`, asks clients where a run stands."""
    server, state, folded = algorithm.server, position.server, position.folded
    return Task(
        name, context, partial(server.broadcast, state), folded, staleness,
        lambda client: server.sent(state, client, folded.get(client)),
    )  # fmt: skip


class Runtime(Protocol):
    """Where clients live: asks them, and streams what they answer as it comes."""

    @property
    def roster(self) -> tuple[str, ...]:
        """Every client that can be asked."""
        ...

    def call(self, tasks: Sequence[Task], clients: Sequence[str]) -> Iterator[Reply | Failure]:
        """Ask `clients` each of `tasks`: one answer per client and task.

        The answers of one client come in the tasks' order; those of others may stand in between.
        """
        ...
