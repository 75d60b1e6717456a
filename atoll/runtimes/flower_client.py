"""A client's half of a federation over the network: an ask in, guarded answers out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from atoll.core import Algorithm, Failure, Payload, Reply, Task
from atoll.core.wire import pack, unpack
from atoll.errors import AtollError, PolicyError
from atoll.frames import Frame, Kind
from atoll.runtimes.held import Held
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.letters import frames_in
from atoll.runtimes.messages import broken
from atoll.runtimes.serving import serve

__all__ = ["Guard", "answer_ask", "refusal"]

ASKED = (Kind.RECORD, Kind.ASK)
Send = Callable[[Frame], None]


@dataclass(frozen=True)
class Guard:
    """What a site has to say about an ask and its answers.

    begin: raises where nothing may be done now.   release: what may leave of a payload.
    told: what may leave of a failure.
    leaving: (task, answer, its bytes) before they leave; raises where they may not.
    failed: the same for an error that is all there is to an answer.
    takes: raises where what was sent is not worked on.
    """

    begin: Callable[[Sequence[Task]], None]
    release: Callable[[Payload], Payload]
    told: Callable[[Failure], Failure]
    leaving: Callable[[Task, Reply | Failure, bytes], None]
    failed: Callable[[bytes], None]
    takes: Callable[[Sequence[Task]], None] = lambda tasks: None


@dataclass(frozen=True)
class _Guarded:
    """The site's runtime, under its guard; tasks that run are told to `asked`."""

    inner: InProcess
    guard: Guard
    held: Held
    asked: list[Task]

    @property
    def roster(self) -> tuple[str, ...]:
        return self.inner.roster

    @property
    def algorithms(self) -> Mapping[str, Algorithm]:
        return self.inner.algorithms

    def call(self, tasks: Sequence[Task], clients: Sequence[str]) -> Iterator[Reply | Failure]:
        self.asked[:] = tasks
        try:
            self.guard.begin(tasks)
            whole = [self.held.opened(task, clients[0]) for task in tasks]
            self.guard.takes(whole)
            for reply in self.inner.call(whole, clients):
                yield self._released(reply)
        except AtollError as error:
            # One site's trouble: the server goes on without it, and is told.
            failure = self.guard.told(Failure(clients[0], _kind(error), str(error)))
            yield from (failure for _ in tasks)

    def _released(self, reply: Reply | Failure) -> Reply | Failure:
        if isinstance(reply, Failure):
            return self.guard.told(reply)
        return replace(reply, payload=self.guard.release(reply.payload))


def answer_ask(inner: InProcess, guard: Guard, held: Held, data: bytes, send: Send) -> None:
    """Answer the ask that a letter holds; nothing leaves that the guard has not seen.

    held: what this client was sent last.

    Raises:
        AtollError: what the guard raises of a failure, which then may not leave either.
    """
    asked: list[Task] = []
    answers = 0

    def guarded(frame: Frame) -> None:
        nonlocal answers
        if frame.kind is Kind.RECORD:
            frame = _seen(guard, asked[min(answers, len(asked) - 1)], frame)
            answers += 1
        elif frame.kind is Kind.BROKEN:
            guard.failed(frame.data)
        send(frame)

    serve(_Guarded(inner, guard, held, asked), frames_in(data, kinds=ASKED), guarded)


def _seen(guard: Guard, task: Task, frame: Frame) -> Frame:
    """The frame that may leave: an answer, or that the policy keeps it."""
    record = unpack(frame.data)
    assert isinstance(record, Reply | Failure)
    try:
        guard.leaving(task, record, frame.data)
    except PolicyError as error:
        record = Failure(record.client, _kind(error), str(error))
        frame = replace(frame, data=pack(record))
        guard.leaving(task, record, frame.data)
    return frame


def refusal(error: BaseException) -> Frame:
    """That there is no answer, and why."""
    return Frame(Kind.BROKEN, 0, broken(error))


def _kind(error: AtollError) -> str:
    return type(error).__name__.removesuffix("Error").lower()
