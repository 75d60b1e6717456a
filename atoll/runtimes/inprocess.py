"""Clients in this process: simulation, where a stack of clients shares one base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from atoll.core import Algorithm, Failure, Reply, Request, State, Task
from atoll.round import answer
from atoll.runtimes.store import ClientStore

__all__ = ["InProcess"]

AT_ONCE = 256
"""Clients whose own states are in memory together: many stacks, and few of a large population."""


@dataclass(frozen=True)
class InProcess:
    """A runtime whose clients are rows of a data set.

    algorithms: the program's, by the names that tasks carry.   store: the clients' own state.
    """

    roster: tuple[str, ...]
    algorithms: Mapping[str, Algorithm]
    store: ClientStore

    def call(self, tasks: Sequence[Task], clients: Sequence[str]) -> Iterator[Reply | Failure]:
        """Ask clients in stacks; states are kept by exchange, and committed by the next call."""
        for start in range(0, len(clients), AT_ONCE):
            few = clients[start : start + AT_ONCE]
            # Tasks that travel together start from one state: none of them is folded yet.
            states = {client: self._state(tasks[0], client) for client in few}
            for task in tasks:
                yield from self._ask(task, states)

    def _ask(self, task: Task, states: Mapping[str, State]) -> Iterator[Reply | Failure]:
        requests = [
            Request(task.context.at(client), task.broadcast(client), state)
            for client, state in states.items()
        ]
        for reply in answer(self.algorithms[task.algorithm], requests):
            if isinstance(reply, Reply) and _changed(reply.state, states[reply.client]):
                self.store.save(task.context.at(reply.client), reply.state)
            yield reply

    def _state(self, task: Task, client: str) -> State:
        return self.store.load(task.context.at(client), task.folded.get(client))


def _changed(new: State, old: State) -> bool:
    return new.keys() != old.keys() or any(new[part] is not old[part] for part in new)
