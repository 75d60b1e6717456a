"""Small parts of a run, really done: what they take is measured, and scaled to the whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from atoll.aggregators import mean
from atoll.core import (
    Algorithm,
    Context,
    Federation,
    Payload,
    Position,
    Program,
    Reply,
    Report,
    Request,
    Runtime,
    State,
    Task,
)
from atoll.experiment.program import Heads, build_program
from atoll.experiment.setup import Setup
from atoll.local.bench import Bench
from atoll.models.objective import Example
from atoll.round import federate
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.store import memory_store

__all__ = ["exchange", "of_one_step", "requests", "trainer"]


def trainer(setup: Setup, bench: Bench) -> Algorithm:
    """The algorithm of adapter rounds, over another bench."""
    return build_program(setup.loaded, bench, Heads(), setup.protection).algorithms["train"]


def exchange(
    algorithm: Algorithm,
    clients: Sequence[str],
    state: State,
    replies: Mapping[str, Payload] | None = None,
) -> Report:
    """One exchange with these clients, through the loop and a runtime.

    replies: what they answer, where that is known already.
    """
    # What a secure sum says on top is little, and needs more clients than are asked here.
    plain = tuple(stage for stage in algorithm.stages if stage.sealing is None)
    # A rule that compares more updates than are sent here would make nothing of them.
    fold = algorithm.aggregator if algorithm.aggregator.least <= len(clients) else mean()
    algorithm = replace(algorithm, stages=plain, aggregator=fold)
    roster, named = tuple(clients), {"rehearsal": algorithm}
    runtime: Runtime = InProcess(roster, named, memory_store())
    if replies is not None:
        runtime = _Answered(roster, replies)
    # One that fails here fails in the run, which says why.
    plan = Federation(0, "rehearsal", num_rounds=0, clients_per_round=len(roster), min_clients=0)
    start = Position(algorithm.server.init(state))
    (report,) = federate(Program(named, lambda number: ("rehearsal",)), runtime, plan, start)
    return report


def requests(algorithm: Algorithm, contexts: Sequence[Context], state: State) -> list[Request]:
    """What a server in `state` asks of clients."""
    state = algorithm.server.init(state)
    return [Request(one, algorithm.server.broadcast(state, one.client)) for one in contexts]


@dataclass(frozen=True)
class _Answered:
    """A runtime whose clients have answered already."""

    roster: tuple[str, ...]
    replies: Mapping[str, Payload]

    def call(self, tasks: Sequence[Task], clients: Sequence[str]) -> Iterator[Reply]:
        yield from (Reply(client, self.replies[client]) for _ in tasks for client in clients)


def of_one_step(setup: Setup, example: Example, *, clients: int, rows: int) -> Bench:
    """A bench of clients that take one step each, of one row so many times."""
    settings = setup.bench.settings.model_copy(
        update={
            "per_device_train_batch_size": rows,
            "gradient_accumulation_steps": 1,
            "max_steps": 1,
        }
    )
    return replace(
        setup.bench,
        examples=lambda client, split: [example] * rows,
        settings=settings,
        group_size=clients,
    )
