"""The parent's half of an ask: what travels, packed once where it is the same for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from atoll.core import Payload, Request, Task, payload_nbytes
from atoll.core.wire import pack
from atoll.frames import Frame, Kind
from atoll.runtimes.inprocess import AT_ONCE
from atoll.runtimes.messages import Ask, Question

__all__ = ["Asking", "Numbered"]

TOGETHER = 2**28
"""Bytes of payloads of clients' own that a worker holds at once."""

KNOWN = 3
"""Payloads of one task that are packed once each: the whole, a step, and nothing of it."""
_Identity = tuple[object, ...]


class Numbered(NamedTuple):
    """A request by its number."""

    number: int
    request: Request


class Asking:
    """Tasks on their way to workers; `number` is the first that no frame has had."""

    def __init__(self, tasks: Sequence[Task], *, number: int) -> None:
        self.tasks = tuple(tasks)
        self.number = number
        # Requests are kept, so that no other tensor gets the identity of theirs.
        self._known: list[dict[_Identity, Numbered]] = [{} for _ in self.tasks]
        self._packed: dict[int, Frame] = {}

    def at_once(self, clients: Sequence[str]) -> int:
        """How many of the clients one ask is for: where each has a payload of its own, few."""
        own = 0
        for task in self.tasks:
            first, last = task.broadcast(clients[0]), task.broadcast(clients[-1])
            if len(clients) > 1 and _identity(first) != _identity(last):
                own += payload_nbytes(first)
        return AT_ONCE if own == 0 else max(1, min(AT_ONCE, TOGETHER // own))

    def frames(self, clients: Sequence[str], held: set[int]) -> Iterator[Frame]:
        """What a worker that holds the requests `held` is sent; the last frame is the ask.

        Raises:
            PayloadError: a broadcast that cannot travel.
        """
        for part in self.parts(clients, held):
            yield part if isinstance(part, Frame) else self._frame(*part)

    def parts(self, clients: Sequence[str], held: set[int]) -> Iterator[Numbered | Frame]:
        """The same, with requests that are not packed."""
        questions: list[Question] = []
        for place, task in enumerate(self.tasks):
            numbers: list[int] = []
            for client in clients:
                asked = self._request(place, client)
                numbers.append(asked.number)
                if asked.number not in held:
                    held.add(asked.number)
                    yield asked
            folded = {name: task.folded[name] for name in clients if name in task.folded}
            questions.append(
                Question(algorithm=task.algorithm, requests=tuple(numbers), folded=folded)
            )
        ask = Ask(clients=tuple(clients), questions=tuple(questions))
        # A worker forgets what this ask does not name.
        held.intersection_update(number for each in questions for number in each.requests)
        yield Frame(Kind.ASK, self._next(), ask.model_dump_json().encode())

    def _request(self, place: int, client: str) -> Numbered:
        """A request of before, where this client's payload is that one's."""
        task, known = self.tasks[place], self._known[place]
        payload = task.broadcast(client)
        identity = _identity(payload)
        if identity not in known:
            if len(known) >= KNOWN:
                del known[next(iter(known))]
            known[identity] = Numbered(self._next(), Request(task.context, payload))
        return known[identity]

    def _frame(self, number: int, request: Request) -> Frame:
        if number not in self._packed:
            kept = {one.number for known in self._known for one in known.values()}
            self._packed = {n: frame for n, frame in self._packed.items() if n in kept}
            self._packed[number] = Frame(Kind.RECORD, number, pack(request))
        return self._packed[number]

    def _next(self) -> int:
        self.number += 1
        return self.number - 1


def _identity(payload: Payload) -> _Identity:
    """Equal for payloads of the very same tensors."""
    return tuple(
        (name, channel.reduce, channel.weight, channel.l2,
         tuple((key, id(value)) for key, value in channel.tree.items()))
        for name, channel in payload.items()
    )  # fmt: skip
