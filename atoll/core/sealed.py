"""Replies on their way into an aggregate: in the open, or as sums that hide single ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from atoll.core.asked import Context, Failure, Reply, Request, Runtime, State, Task
from atoll.core.payload import Payload
from atoll.errors import ClosedError

__all__ = ["ATTEMPTS", "Sealed", "Sealing", "attempted"]

ATTEMPTS = 3
"""How often a sealed sum is asked for, each time under fresh keys, until one is opened."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Sealed:
    """One exchange.

    replies: as they come; sealed ones, where anything seals them.
    start, add: what they are folded into: (state, client, payload) -> state.
    recover: (state, whose replies are in it) -> the aggregate that they hide.
    traffic: bytes up and down of all that was said beside them.
    closed: clients whose replies came, and are in no sum that could be opened.
    wrong: clients that are in it, and did not keep to what was agreed afterwards.
    """

    replies: Iterator[Reply | Failure]
    start: State
    add: Callable[[State, str, Payload], State]
    recover: Callable[[State, Sequence[str]], Payload]
    traffic: Callable[[], tuple[int, int]] = lambda: (0, 0)
    closed: Callable[[], tuple[Failure, ...]] = lambda: ()
    wrong: Callable[[], tuple[Failure, ...]] = lambda: ()

    def failed(self, folded: dict[str, int]) -> list[Failure]:
        """Who did once the replies were in; whose sums stayed closed are `folded` no more."""
        closed = [one for one in self.closed() if folded.pop(one.client, None) is not None]
        return closed + [one for one in self.wrong() if one.client in folded]


@dataclass(frozen=True)
class Sealing:
    """How a stage hides single payloads.

    travels: the shapes of a reply -> those of a sealed one.
    seal: (request, encoded payload) -> what leaves the client, once, after every stage.
    begin: (runtime, task, the shapes of a reply) -> the exchange, once clients have their keys.
    among: (a moment at a client) -> how many clients the sum holds that it is hidden in.
    said: (an exchange) -> bytes up and down of all that is said beside replies, if nobody drops
    out.
    """

    travels: Callable[[Payload], Payload]
    seal: Callable[[Request, Payload], Payload]
    begin: Callable[[Runtime, Task, Payload], Sealed]
    among: Callable[[Context], int]
    said: Callable[[Context], tuple[int, int]] = lambda context: (0, 0)


def attempted(task: Task, ask: Callable[[Task], Result]) -> tuple[Result, tuple[str, ...]]:
    """What asking comes to, and why sums stayed closed before.

    Raises:
        ClosedError: the first one, where no attempt is opened.
    """
    closed: list[ClosedError] = []
    for attempt in range(ATTEMPTS):
        context = replace(task.context, attempt=attempt)
        try:
            return ask(replace(task, context=context)), tuple(map(str, closed))
        except ClosedError as error:
            closed.append(error)
    raise closed[0]
