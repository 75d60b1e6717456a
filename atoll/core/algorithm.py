"""An algorithm, algorithms that take turns, and the question that a runtime carries to clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from atoll.core.asked import Context, Runtime, Task
from atoll.core.check import check
from atoll.core.hidden import check_noised
from atoll.core.parts import Aggregator, ClientWork, Server, Stage
from atoll.core.payload import Payload
from atoll.core.progress import Position
from atoll.core.sealed import Sealed, Sealing

__all__ = ["Algorithm", "Program", "begun", "question"]


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

    @property
    def sealing(self) -> Sealing | None:
        """How single replies are hidden from the server; None: it sees each."""
        found = [stage.sealing for stage in self.stages if stage.sealing is not None]
        return found[-1] if found else None

    def travelling(self, like: Payload) -> Payload:
        """The shapes of a reply as the server folds it."""
        return like if self.sealing is None else self.sealing.travels(like)

    def said(self, context: Context) -> tuple[int, int]:
        """Bytes up and down of what is said beside replies, if nobody drops out."""
        return (0, 0) if self.sealing is None else self.sealing.said(context)


@dataclass(frozen=True)
class Program:
    """Algorithms that take turns on one server state.

    order: round -> the names to run in it, in order; round 0 comes before any adapter round.
    """

    algorithms: Mapping[str, Algorithm]
    order: Callable[[int], tuple[str, ...]]


def begun(algorithm: Algorithm, runtime: Runtime, task: Task, like: Payload) -> Sealed:
    """The replies to a task; where nothing seals them, as they are."""
    if algorithm.sealing is not None:
        return algorithm.sealing.begin(runtime, task, like)
    fold = algorithm.aggregator
    return Sealed(
        runtime.call([task], task.context.cohort),
        fold.init(like),
        lambda state, client, payload: fold.add(state, payload),
        lambda state, clients: fold.finish(state),
    )


def question(
    name: str, algorithm: Algorithm, context: Context, position: Position, staleness: float
) -> Task:
    """What `algorithm`, known as `name`, asks clients where a run stands."""
    server, state, folded = algorithm.server, position.server, position.folded
    return Task(
        name, context, partial(server.broadcast, state), folded, staleness,
        lambda client: server.sent(state, client, folded.get(client)),
    )  # fmt: skip
