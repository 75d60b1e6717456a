"""Records as bytes and back: tensors as safetensors, the rest as JSON, nothing pickled.

Whatever arrives is refused with a sentence unless it is whole and of the agreed form; whether its
names and shapes are those that were asked for is for `validate` to say. A client's own state is no
part of a request or a reply: it never travels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import assert_never

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from atoll.core.asked import Context, Failure, Reply, Request, State
from atoll.core.facts import (
    FACTS,
    TOLD,
    ChannelFacts,
    ContextFacts,
    Facts,
    FailureFacts,
    PayloadFacts,
    ReplyFacts,
    RequestFacts,
    StateFacts,
    complaint,
)
from atoll.core.header import broken
from atoll.core.packed import laid_out, open_trees, unpack_trees
from atoll.core.payload import Channel, Payload
from atoll.errors import PayloadError
from atoll.frames import LIMIT
from atoll.tree import Tree
from atoll.words import printable

__all__ = [
    "Record",
    "open_record",
    "pack",
    "pack_payload",
    "pack_state",
    "parts_of",
    "unpack",
    "unpack_payload",
    "unpack_state",
]

Record = Context | Request | Reply | Failure


def pack(record: Record) -> bytes:
    """Bytes of a record; the state of a request or a reply stays here.

    Raises:
        PayloadError: for what cannot travel.
    """
    return b"".join(parts_of(record))


def parts_of(record: Record) -> Sequence[bytes | memoryview]:
    """The bytes of `pack` one after the other, of which the tensors' are not copied.

    Raises:
        PayloadError: for what cannot travel.
    """
    payload = record.payload if isinstance(record, Request | Reply) else {}
    with _fit_to_travel():
        return laid_out(_facts(record).model_dump_json(), _trees(payload))


def unpack(data: bytes, *, limit: int = LIMIT) -> Record:
    """A record from bytes.

    Raises:
        PayloadError: for bytes that `pack` does not write, or more of them than `limit`.
    """
    return _record(*_unpacked(data, limit))


def open_record(path: Path, start: int, size: int, *, limit: int = LIMIT) -> Record:
    """A record from `size` bytes of a file, whose tensors are read when used; see `unpack`."""
    text, trees = open_trees(path, start, size, limit=limit)
    return _record(_parsed(text), trees)


def _record(facts: Facts, trees: Sequence[Tree]) -> Record:
    if isinstance(facts, RequestFacts):
        return Request(facts.context, _payload(facts.channels, trees))
    if isinstance(facts, ReplyFacts):
        return Reply(facts.client, _payload(facts.channels, trees))
    if trees:
        raise broken("it brings tensors that it does not name")
    if isinstance(facts, ContextFacts):
        return facts.context
    if isinstance(facts, FailureFacts):
        return Failure(facts.client, printable(facts.kind), printable(facts.message))
    raise broken(f"it is a {facts.record}")


def pack_payload(payload: Payload) -> bytes:
    """Bytes of a payload; see `pack`."""
    with _fit_to_travel():
        return _packed(PayloadFacts(channels=_channels(payload)), _trees(payload))


def unpack_payload(data: bytes, *, limit: int = LIMIT) -> Payload:
    """A payload from bytes; see `unpack`."""
    facts, trees = _unpacked(data, limit)
    if not isinstance(facts, PayloadFacts):
        raise broken(f"it is a {facts.record}, no payload")
    return _payload(facts.channels, trees)


def pack_state(state: State) -> bytes:
    """Bytes of a state; see `pack`."""
    with _fit_to_travel():
        return _packed(StateFacts(parts=tuple(state)), tuple(state.values()))


def unpack_state(data: bytes, *, limit: int = LIMIT) -> State:
    """A state from bytes; see `unpack`."""
    facts, trees = _unpacked(data, limit)
    if not isinstance(facts, StateFacts):
        raise broken(f"it is a {facts.record}, no state")
    return _named(facts.parts, trees)


def _facts(record: Record) -> Facts:
    match record:
        case Context():
            return ContextFacts(context=record)
        case Request():
            return RequestFacts(context=record.context, channels=_channels(record.payload))
        case Reply():
            return ReplyFacts(client=record.client, channels=_channels(record.payload))
        case Failure():
            message = printable(record.message[:TOLD])
            return FailureFacts(client=record.client, kind=record.kind, message=message)
        case _:
            assert_never(record)


def _channels(payload: Payload) -> tuple[ChannelFacts, ...]:
    return tuple(
        ChannelFacts(name=name, reduce=channel.reduce, weight=channel.weight, l2=channel.l2)
        for name, channel in payload.items()
    )


def _trees(payload: Payload) -> tuple[Tree, ...]:
    return tuple(channel.tree for channel in payload.values())


def _packed(facts: Facts, trees: Sequence[Tree]) -> bytes:
    return b"".join(laid_out(facts.model_dump_json(), trees))


def _unpacked(data: bytes, limit: int) -> tuple[Facts, tuple[Tree, ...]]:
    text, trees = unpack_trees(data, limit=limit)
    return _parsed(text), trees


def _parsed(text: str) -> Facts:
    try:
        return FACTS.validate_json(text, strict=True)
    except ValidationError as error:
        raise broken(complaint(error)) from None


def _payload(channels: Sequence[ChannelFacts], trees: Sequence[Tree]) -> Payload:
    named = _named([channel.name for channel in channels], trees)
    return {
        channel.name: Channel(named[channel.name], channel.reduce, channel.weight, channel.l2)
        for channel in channels
    }


def _named(names: Sequence[str], trees: Sequence[Tree]) -> State:
    if len(set(names)) != len(trees) or len(names) != len(trees):
        raise broken(f"it names {', '.join(names) or 'nothing'}, and brings {len(trees)} trees")
    return dict(zip(names, trees, strict=True))


@contextmanager
def _fit_to_travel() -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        raise PayloadError(f"a record cannot travel: {complaint(error)}") from None
    except PydanticSerializationError as error:  # a name that is not UTF-8
        raise PayloadError(f"a record cannot travel: {error}") from None
