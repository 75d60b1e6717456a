"""What a secure sum's clients and server say to each other, as questions of a runtime.

The steps of `secagg` are questions of their own, beside the round's: an algorithm whose payloads
are messages. A message is padded to the room that its kind may take, so that its length says
nothing and its shape is known before it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch

from atoll.aggregators import mean
from atoll.core import (
    Algorithm,
    Channel,
    ClientWork,
    Context,
    Failure,
    Payload,
    Reply,
    Request,
    Server,
    State,
)
from atoll.errors import PROTOCOL, ProtocolError

__all__ = [
    "CHALLENGES",
    "SPEAKING",
    "STEPS",
    "Said",
    "at_step",
    "heard",
    "message_of",
    "question_of",
    "second",
    "speaking",
    "step_of",
]

SPEAKING, MESSAGE = "secagg", "message"
CHALLENGING, CHALLENGES = ("challenge", "answer"), 3
"""Steps that are asked again without a client that did not answer, and how often at most."""
STEPS = (
    "inbox", "advert", "shares", "signature", "opening", "key", "decrypt",
    *(CHALLENGING * CHALLENGES),
)  # fmt: skip
"""The inbox rides on the round's own question, and has its moment. Those from the key on are of
encrypted sums, the four before it of masks."""
SIDE = 2**26
"""Numbers of exchanges between those of two steps; the round's own are below."""
MOST = 2**28

Said = Callable[[Context, str, bytes, int], bytes]
"""(the round's moment at a client, step, message, room) -> its answer, of `room` bytes at most."""


def at_step(context: Context, step: str, again: int = 0) -> Context:
    """The moment of a step beside a round's; again: how often it was asked before."""
    place = STEPS.index(step) + again * len(CHALLENGING)
    return replace(context, exchange=context.exchange + place * SIDE)


def step_of(context: Context) -> tuple[Context, str]:
    """The round's moment, and the step, of a question.

    Raises:
        ProtocolError: for a moment that is none of a step.
    """
    step, exchange = divmod(context.exchange, SIDE)
    if step >= len(STEPS):
        raise ProtocolError(f"exchange {context.exchange} is no step of a secure sum")
    return replace(context, exchange=exchange), STEPS[step]


def question_of(message: bytes, room: int) -> Payload:
    """A message, and how many bytes its answer may have."""
    tree = {"bytes": _tensor(message), "room": torch.tensor(room)}
    return {MESSAGE: Channel(tree, "none")}


def message_of(payload: Payload) -> bytes:
    """What was said.

    Raises:
        ProtocolError: for a payload that holds no message.
    """
    tree = payload[MESSAGE].tree if MESSAGE in payload else {}
    raw, length = tree.get("bytes"), tree.get("length")
    if raw is None or raw.dtype != torch.uint8 or raw.dim() != 1:
        raise ProtocolError("a message of a secure sum came without its bytes")
    size = raw.numel() if length is None else _whole(length)
    if not 0 <= size <= raw.numel():
        raise ProtocolError(f"a message of {size} bytes came in {raw.numel()}")
    return raw[:size].numpy().tobytes()


def heard(reply: Reply | Failure) -> bytes | Failure:
    """What a client said, or why nothing of it can be used."""
    if isinstance(reply, Failure):
        return reply
    try:
        return message_of(reply.payload)
    except ProtocolError as error:
        return Failure(reply.client, PROTOCOL, str(error))


def second(replies: Iterable[Reply | Failure]) -> Iterator[Reply | Failure]:
    """What clients answer to the second of two questions that are asked together."""
    heard = set[str]()
    for reply in replies:
        if reply.client in heard:
            yield reply
        heard.add(reply.client)


def speaking(said: Said) -> Algorithm:
    """The algorithm whose answers are `said`; nothing of it is folded."""

    def template(broadcast: Payload) -> Payload:
        return _answer(b"", _room(broadcast))

    def work(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
        for request in requests:
            client = request.context.client
            try:
                moment, step = step_of(request.context)
                room = _room(request.payload)
                answer = said(moment, step, message_of(request.payload), room)
                yield Reply(client, _answer(answer, room))
            except ProtocolError as error:
                yield Failure(client, PROTOCOL, str(error))

    def unmoved(context: Context, state: State, aggregate: Payload) -> State:
        return state

    server = Server(SPEAKING, lambda state: state, lambda state, client: {}, unmoved)
    client = ClientWork(SPEAKING, template, work, (MESSAGE,))
    return Algorithm(SPEAKING, client, (), mean(), server, kind="exchange")


def _room(payload: Payload) -> int:
    tree = payload[MESSAGE].tree if MESSAGE in payload else {}
    room = _whole(tree["room"]) if "room" in tree else -1
    if not 0 <= room <= MOST:
        raise ProtocolError(f"a question leaves room for {room} bytes; the most is {MOST}")
    return room


def _whole(value: torch.Tensor) -> int:
    """One whole number; -1 for whatever else came in its place."""
    whole = value.numel() == 1 and not (value.is_floating_point() or value.is_complex())
    return int(value) if whole else -1


def _answer(message: bytes, room: int) -> Payload:
    if len(message) > room:
        raise ProtocolError(f"an answer has {len(message)} bytes, and there is room for {room}")
    padded = _tensor(message + bytes(room - len(message)))
    return {MESSAGE: Channel({"bytes": padded, "length": torch.tensor(len(message))}, "none")}


def _tensor(raw: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8) if raw else torch.zeros(0).byte()
