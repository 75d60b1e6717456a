"""Our bytes in a message of Flower, and out of one.

A message holds a head and a body; the body is an array, which Flower sends in chunks. Chunks are
read where they lie, when they are sent: whoever sends a body of a file holds one chunk of it.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import InflatableObject

from atoll.flower.parcels import Stored, read_stored, split

__all__ = ["CHUNK", "MESSAGE", "SHEET", "content_of", "head_in"]

MESSAGE = "query"
NAME = "atoll"
CHUNK = 2 * 2**20
"""Bytes of a body in one request, which whoever passes it on holds several times."""
SHEET = b"ArrayChunk  %d\x00"
"""What Flower writes before a chunk."""
KNOWN = 2**14


class _Chunk(InflatableObject):  # type: ignore[misc]
    """Bytes of a body: `held` from a file, which goes to many clients, and others behind them."""

    def __init__(self, held: Stored | None, rest: memoryview) -> None:
        self._held, self._rest = held, rest
        self._name = _name(held) if held is not None and not rest else _digest(held, rest)

    @property
    def object_id(self) -> str:
        return self._name

    def deflate(self) -> bytes:
        return _deflated(self._held, self._rest)


def content_of(data: bytes | memoryview, stored: Stored | None = None) -> RecordDict:
    """A message's head as a record, and its body as an array.

    stored: how the body begins.   data: the head, and how the body ends.
    """
    head, rest = split(data)
    size = len(rest) if stored is None else stored.length + len(rest)
    array = Array(dtype="uint8", shape=(size,), stype="bytes", data=b"")
    chunks = [_chunk(stored, rest, start) for start in range(0, size, CHUNK)]
    # Where Flower keeps the chunks that it has cut.
    vars(array)["_chunks"] = [(chunk.object_id, chunk) for chunk in chunks]
    record = ArrayRecord()
    record[NAME] = array
    return RecordDict({"head": ConfigRecord({NAME: head}), "body": record})


def _chunk(stored: Stored | None, rest: memoryview, start: int) -> _Chunk:
    before = 0 if stored is None else stored.length
    held = None
    if stored is not None and start < before:
        length = min(CHUNK, before - start)
        held = Stored(path=stored.path, start=stored.start + start, length=length)
    return _Chunk(held, rest[max(start - before, 0) : max(start + CHUNK - before, 0)])


@lru_cache(KNOWN)
def _name(held: Stored) -> str:
    """A chunk that goes to many clients is read for its name once."""
    return _digest(held, memoryview(b""))


def _digest(held: Stored | None, rest: memoryview) -> str:
    return hashlib.sha256(_deflated(held, rest)).hexdigest()


def _deflated(held: Stored | None, rest: memoryview) -> bytes:
    begins = b"" if held is None else read_stored(held)
    return b"".join((SHEET % (len(begins) + len(rest)), begins, rest))


def head_in(message: Message) -> bytes | None:
    """The head; None in a message that holds something else than a head and a body."""
    if not message.has_content():
        return None
    heads, bodies = message.content.config_records, message.content.array_records
    if set(heads) != {"head"} or set(bodies) != {"body"} or set(bodies["body"]) != {NAME}:
        return None
    head = heads["head"].get(NAME)
    return head if isinstance(head, bytes) else None
