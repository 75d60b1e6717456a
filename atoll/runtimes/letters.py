"""Letters: frames of any size between a server and a client, cut into pieces that travel.

The server calls and the client answers; a call brings a piece of a letter or asks for a piece of
its answer. Either may be repeated: a piece that is here is kept, and an answer is made once.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, Field

from atoll.core.facts import STRICT
from atoll.errors import PayloadError
from atoll.flower.parcels import Stored
from atoll.frames import HEAD, Frame, Kind, head_of
from atoll.runtimes.messages import Count, read

__all__ = [
    "INLINE",
    "OPENING",
    "PATIENCE",
    "PIECE",
    "UNREAD",
    "WHY",
    "Answer",
    "Call",
    "Letter",
    "Piece",
    "State",
    "frames_in",
    "packed",
    "pieces_of",
    "unpacked",
]

OPENING = "opening"
"""Letters whose names begin so are for a process that does not know the federation yet."""
PIECE = 60 * 2**20
"""Bytes of a letter in one message."""
INLINE = 2**22
"""Bytes of an answer that come along unasked."""
PATIENCE = 8.0
"""Seconds for which a call waits at the client for an answer that is being made."""
HEAD_SIZE = 2**16
"""Bytes of a message's head at most: text unfolds to many times its bytes when it is read."""
SIZE = struct.Struct("<I")
UNREAD = "unread"
"""The letter that an answer names to a call which could not be read."""
WHY = 1000
"""Characters of a refusal at most."""
State = Literal["incomplete", "working", "done", "unopened", "refused"]
Head = TypeVar("Head", bound=BaseModel)
Size = Annotated[int, Field(ge=0, lt=2**40)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Run = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Name = Annotated[str, Field(pattern="^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")]


class Call(BaseModel):
    """What a message to a client is about.

    run: which federation.   letter: its name.   size, digest: of the whole letter.
    piece: which one comes with the call.   fetch: which piece of the answer is wanted.
    """

    model_config = STRICT

    run: Run
    letter: Name
    size: Size
    digest: Digest
    piece: Count | None = None
    fetch: Count | None = None


class Answer(BaseModel):
    """What a client says to a call.

    session: which process answers; a new one has to be opened anew.
    state: incomplete (pieces of the letter are missing), working, done, unopened (this process
        does not know the federation yet), or refused (`why` the letter is not read).
    size, digest: of the answer's bytes, once it is done.   piece: which one comes along.
    """

    model_config = STRICT

    client: Name
    session: Name
    letter: Name
    state: State
    missing: Annotated[tuple[Count, ...], Field(max_length=4096)] = ()
    size: Size = 0
    digest: Digest | None = None
    piece: Count | None = None
    why: Annotated[str, Field(max_length=WHY)] = ""


@dataclass(frozen=True)
class Letter:
    """Bytes: those in `stored`, which other letters may begin with too, and then `rest`."""

    name: str
    stored: Stored | None
    rest: bytes
    size: int
    digest: str

    @classmethod
    def of(cls, name: str, frames: Iterable[Frame]) -> Letter:
        """A letter that holds these frames in memory."""
        rest = b"".join(part for frame in frames for part in (head_of(frame), frame.data))
        return cls(name, None, rest, len(rest), hashlib.sha256(rest).hexdigest())

    def named(self) -> Letter:
        """Its name alone, by which an answer to it is known."""
        return replace(self, stored=None, rest=b"")

    @property
    def gone(self) -> bool:
        """Whether only its name is left here: it was sent before."""
        return self.size > 0 and self.stored is None and not self.rest

    @property
    def pieces(self) -> int:
        """How many messages it travels in."""
        return pieces_of(self.size)

    def piece(self, number: int) -> Piece:
        """The bytes of one of them."""
        start, end = number * PIECE, (number + 1) * PIECE
        before = 0 if self.stored is None else self.stored.length
        held = None
        if self.stored is not None and start < before:
            length = min(end, before) - start
            held = Stored(path=self.stored.path, start=self.stored.start + start, length=length)
        return Piece(held, self.rest[max(start - before, 0) : max(end - before, 0)])


@dataclass(frozen=True)
class Piece:
    """Bytes of a letter: those in a file, and those after them."""

    stored: Stored | None = None
    rest: bytes = b""

    @property
    def size(self) -> int:
        """How many they are."""
        return len(self.rest) + (0 if self.stored is None else self.stored.length)


def pieces_of(size: int) -> int:
    """How many messages so many bytes travel in."""
    return max(1, -(-size // PIECE))


def packed(head: BaseModel, body: Sequence[bytes] = ()) -> bytes:
    """A message: its head as JSON, and the bytes that come with it."""
    told = head.model_dump_json(exclude_defaults=True).encode()
    return b"".join((SIZE.pack(len(told)), told, *body))


def unpacked(kind: type[Head], data: bytes | memoryview) -> tuple[Head, memoryview]:
    """A message's head and body.

    Raises:
        PayloadError: another form than agreed.
    """
    size = SIZE.unpack_from(data)[0] if len(data) >= SIZE.size else len(data)
    if SIZE.size + size > len(data):
        raise PayloadError("a message came that is cut off")
    if size > HEAD_SIZE:
        raise PayloadError(f"a message came whose head has {size:,} bytes")
    view = memoryview(data)
    return read(kind, bytes(view[SIZE.size : SIZE.size + size])), view[SIZE.size + size :]


def frames_in(data: bytes, *, kinds: Sequence[Kind]) -> Iterator[Frame]:
    """The frames that a letter holds.

    Raises:
        PayloadError: something else, or frames of other kinds.
    """
    at = 0
    while at < len(data):
        if at + HEAD.size > len(data):
            raise PayloadError("a letter came that is cut off")
        letter, number, length = HEAD.unpack_from(data, at)
        at += HEAD.size
        if letter not in {kind.value for kind in kinds} or at + length > len(data):
            raise PayloadError("a letter came that is cut off, or holds what was not asked for")
        yield Frame(Kind(letter), number, data[at : at + length])
        at += length
