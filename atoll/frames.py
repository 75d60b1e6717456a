"""Frames on a pipe or a socket: what kind, which number, how long, and then the bytes."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from atoll.errors import PayloadError

__all__ = ["HEAD", "LIMIT", "Frame", "Kind", "head_of", "pipes", "read_frame", "write_frame"]

LIMIT = 2**32
"""Bytes of one record, where nobody knows better: a billion float32 values."""
HEAD = struct.Struct("<c3xIQ")
"""Of 16 bytes: a tensor that is aligned in a frame is aligned in a file of frames."""
PIECE = 2**20
"""Bytes read at once: who announces much and sends little costs no more than that."""


class Kind(Enum):
    """What a frame holds.

    OPEN, READY: the identity of either side.   RECORD: a request (its number is its own), a reply
    or a failure (of the ask with that number).   ASK, DONE: begin and end of a batch of answers.
    BROKEN: an error that ends the run.   CALL, ANSWER: a message of a federation and its reply.
    NEWS: what a relay has seen.   NOTE: what a person should hear of a worker, as text.
    """

    OPEN = b"o"
    READY = b"r"
    RECORD = b"v"
    ASK = b"a"
    DONE = b"d"
    BROKEN = b"b"
    CALL = b"c"
    ANSWER = b"w"
    NEWS = b"n"
    NOTE = b"t"


@dataclass(frozen=True)
class Frame:
    """number: at most 32 bits."""

    kind: Kind
    number: int = 0
    data: bytes = b""


def head_of(frame: Frame) -> bytes:
    """The bytes before a frame's data."""
    return HEAD.pack(frame.kind.value, frame.number, len(frame.data))


def _at_once() -> None:
    """The system waits."""


def write_frame(
    descriptor: int, frame: Frame, *, limit: int = LIMIT, wait: Callable[[], None] = _at_once
) -> None:
    """Write one frame whole.

    wait: called before each part, where the descriptor does not block.

    Raises:
        BrokenPipeError: nobody reads any more.
        PayloadError: more bytes than the other side would read.
    """
    if len(frame.data) > limit:
        raise PayloadError(
            f"a record of {len(frame.data):,} bytes cannot travel; at most {limit:,} are read"
        )
    for part in (head_of(frame), frame.data):
        left = memoryview(part)
        while left:
            wait()
            left = left[os.write(descriptor, left) :]


def pipes() -> tuple[int, int]:
    """Input and output for frames alone: nothing else reads the one or prints to the other."""
    incoming, outgoing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return incoming, outgoing


def read_frame(
    descriptor: int, *, limit: int = LIMIT, wait: Callable[[], None] = _at_once
) -> Frame | None:
    """The next frame, or None where the other side ended, also in the middle of a frame.

    wait: called before each part.

    Raises:
        PayloadError: an unknown kind, or more bytes than `limit`; nothing after it can be read.
    """
    head = _read(descriptor, HEAD.size, wait)
    if head is None:
        return None
    letter, number, length = HEAD.unpack(head)
    if letter not in {kind.value for kind in Kind}:
        raise PayloadError(f"a frame of the unknown kind {letter!r} came; what follows is not read")
    if length > limit:
        raise PayloadError(
            f"a frame of {length:,} bytes was announced; at most {limit:,} are read, and what "
            "follows is not"
        )
    data = _read(descriptor, length, wait)
    return None if data is None else Frame(Kind(letter), number, data)


def _read(descriptor: int, length: int, wait: Callable[[], None]) -> bytes | None:
    pieces: list[bytes] = []
    left = length
    while left:
        wait()
        piece = os.read(descriptor, min(left, PIECE))
        if not piece:
            return None
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)
