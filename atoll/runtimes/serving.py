"""The worker's half: answers what it is asked, whatever brings the frames."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from safetensors import SafetensorError

from atoll.core import Algorithm, Failure, Payload, Reply, Request, Task
from atoll.core.wire import pack, unpack
from atoll.errors import AtollError, PayloadError
from atoll.frames import LIMIT, Frame, Kind
from atoll.runtimes.messages import Ask, Question, broken, read

__all__ = ["Serving", "serve"]

Send = Callable[[Frame], None]


class Serving(Protocol):
    """A runtime that knows its algorithms."""

    @property
    def roster(self) -> tuple[str, ...]:
        """Every client that can be asked."""
        ...

    @property
    def algorithms(self) -> Mapping[str, Algorithm]:
        """Those that an ask may name."""
        ...

    def call(self, tasks: Sequence[Task], clients: Sequence[str]) -> Iterator[Reply | Failure]:
        """Ask clients; see `Runtime`."""
        ...


class _Held(NamedTuple):
    """A request, and how many bytes it came in."""

    request: Request
    nbytes: int


def serve(runtime: Serving, frames: Iterable[Frame], send: Send, *, limit: int = LIMIT) -> None:
    """Answer every ask, until `frames` ends; limit: bytes of the requests that are held.

    What is malformed, and an error that ends a run, go back as a BROKEN frame. Any other exception
    (memory that ran out) is the caller's: a fresh process may do better.
    """
    requests: dict[int, _Held] = {}
    for frame in frames:
        try:
            if frame.kind is Kind.RECORD:
                _keep(requests, frame, limit)
            elif frame.kind is Kind.ASK:
                requests = _answer(runtime, requests, frame, send)
            else:
                raise PayloadError(f"a frame of kind {frame.kind.name} came, expected an ask")
        except AssertionError as error:
            send(Frame(Kind.BROKEN, frame.number, broken(error, traceback.format_exc())))
        except (AtollError, OSError, SafetensorError) as error:
            send(Frame(Kind.BROKEN, frame.number, broken(error)))


def _keep(requests: dict[int, _Held], frame: Frame, limit: int) -> None:
    record = unpack(frame.data, limit=limit)
    if not isinstance(record, Request):
        raise PayloadError("a record came that is no request")
    if sum(held.nbytes for held in requests.values()) + len(frame.data) > limit:
        raise PayloadError(f"more than {limit:,} bytes of requests came before an ask")
    requests[frame.number] = _Held(record, len(frame.data))


def _answer(
    runtime: Serving, requests: Mapping[int, _Held], frame: Frame, send: Send
) -> dict[int, _Held]:
    """Send an answer for each client and task; returns the requests that the ask named."""
    ask = read(Ask, frame.data)
    tasks = [_task(runtime, ask, question, requests) for question in ask.questions]
    if tasks:
        for reply in runtime.call(tasks, ask.clients):
            send(Frame(Kind.RECORD, frame.number, _packed(reply)))
    send(Frame(Kind.DONE, frame.number))
    named = {number for question in ask.questions for number in question.requests}
    return {number: requests[number] for number in named}


def _packed(reply: Reply | Failure) -> bytes:
    try:
        return pack(reply)
    except PayloadError as error:
        return pack(Failure(reply.client, "payload", str(error)))


def _task(runtime: Serving, ask: Ask, question: Question, requests: Mapping[int, _Held]) -> Task:
    """The task that a question means.

    Raises:
        PayloadError: clients, algorithms or requests that are not known here.
    """
    strange = sorted(set(ask.clients) - set(runtime.roster))
    if strange or len(set(ask.clients)) < len(ask.clients):
        raise PayloadError(f"an ask for {', '.join(strange[:3]) or 'one client twice'} came")
    if question.algorithm not in runtime.algorithms:
        raise PayloadError(
            f"an ask for the algorithm '{question.algorithm}' came; the experiment file has "
            + ", ".join(runtime.algorithms)
        )
    if len(question.requests) != len(ask.clients) or not set(question.requests) <= set(requests):
        raise PayloadError("an ask came for requests that did not come before it")
    meant = [requests[number].request for number in question.requests]
    if not meant or any(request.context != meant[0].context for request in meant):
        raise PayloadError("an ask came whose requests are not of one moment")
    payloads = {client: request.payload for client, request in zip(ask.clients, meant, strict=True)}
    return Task(question.algorithm, meant[0].context, _from(payloads), question.folded)


def _from(payloads: Mapping[str, Payload]) -> Callable[[str], Payload]:
    return lambda client: payloads[client]
