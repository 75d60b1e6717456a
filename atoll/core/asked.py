"""What one client is asked, when, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from atoll.core.payload import Payload
from atoll.tree import Tree

__all__ = ["Context", "Failure", "Reply", "Request", "Runtime", "State", "Task"]

State = dict[str, Tree]
"""Named parts. A server's: adapter, head, statistics, moments, …; a client's: one per owner."""


@dataclass(frozen=True)
class Context:
    """Where and when: the only ambient information.

    exchange counts every question to clients since the run began (a round may hold several);
    client is a roster name ("" on the server); cohort holds all clients that were asked.
    attempt counts the sums of this exchange that stayed closed before.
    """

    seed: int
    run: str
    round: int
    exchange: int
    cohort: tuple[str, ...]
    population: int
    client: str = ""
    attempt: int = 0

    @property
    def sampling_rate(self) -> float:
        """The share of the population that was asked."""
        return len(self.cohort) / self.population

    def at(self, client: str) -> Context:
        """The same moment at one client."""
        return replace(self, client=client)


@dataclass(frozen=True)
class Request:
    """What one client is asked; `state` is the client's own and was never sent."""

    context: Context
    payload: Payload
    state: State = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """One client's answer; `state` stays with the client and is never sent.

    late: the moment that was asked about, where the answer came after its round was over.
    again: how often it was asked once more; then with all of the broadcast, whatever it has.
    """

    client: str
    payload: Payload
    state: State = field(default_factory=dict)
    late: Context | None = None
    again: int = 0


@dataclass(frozen=True)
class Failure:
    """Why one client has no answer; the round goes on without it."""

    client: str
    kind: str
    message: str


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
