"""Where workers sit while a call lasts: who is asked, what came, and what is still owed."""

from __future__ import annotations

import select
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from atoll.core import Failure, Reply
from atoll.core.wire import unpack
from atoll.errors import PayloadError
from atoll.frames import Frame
from atoll.runtimes.asking import Asking
from atoll.runtimes.silence import LOOK
from atoll.runtimes.workers import Worker

__all__ = ["Desk", "Turn", "heard", "record_of"]


@dataclass
class Desk:
    """A worker's place: batches of clients that wait, the one it works for, and what came of it."""

    number: int
    worker: Worker
    batches: deque[tuple[str, ...]] = field(default_factory=deque)
    batch: tuple[str, ...] = ()
    came: Counter[str] = field(default_factory=Counter)


@dataclass
class Turn:
    """One call: what is asked; of each client, how many answers were handed on, and its deaths."""

    asking: Asking
    answered: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)

    def owed(self, client: str) -> bool:
        """Whether an answer of the client is still to come."""
        return self.answered[client] < len(self.asking.tasks)


def heard(busy: Sequence[Desk]) -> list[tuple[Desk, bool]]:
    """The desks whose workers sent something or closed their pipe, else those that ended."""
    poll = select.poll()
    for desk in busy:
        poll.register(desk.worker.fileno(), select.POLLIN)
    ready = {descriptor for descriptor, _ in poll.poll(1000 * LOOK)}
    spoke = [(desk, True) for desk in busy if desk.worker.fileno() in ready]
    for desk in busy:
        if desk.worker.fileno() not in ready:
            desk.worker.silence.look()
    # A pipe outlives its worker where a process that the worker forked still holds it.
    return spoke or [(desk, False) for desk in busy if desk.worker.ended]


def record_of(frame: Frame, desk: Desk, turn: Turn) -> Reply | Failure:
    """An answer that was asked for.

    Raises:
        PayloadError: another record.
    """
    record = unpack(frame.data)
    if not isinstance(record, Reply | Failure) or record.client not in desk.batch:
        raise PayloadError("a record came that was not asked for")
    desk.came[record.client] += 1
    if desk.came[record.client] > len(turn.asking.tasks):
        raise PayloadError(f"more answers of {record.client} came than were asked for")
    return record
