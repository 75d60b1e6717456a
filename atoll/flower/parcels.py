"""A message on a pipe between two of our processes, of which what is large stays in files.

    length of the label (4 bytes) · label (JSON) · message: its head's length, its head, its body

The bytes that the label says are stored stand at the beginning of the body.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["HEAD", "LENGTH", "Label", "Stored", "opened", "read_stored", "sealed", "split", "whole"]

HEAD = struct.Struct("<I")
LENGTH = struct.Struct("<Q")
"""Of a body that was written where the label says."""


class Stored(BaseModel):
    """So many bytes of a file of this machine, which nobody changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    start: int = Field(ge=0)
    length: int = Field(ge=0)


class Label(BaseModel):
    """node: whom it is for.   stored: how its body begins.

    into: where the body of the answer is written, if it is large, and how long it is at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    node: int = 0
    stored: Stored | None = None
    into: Stored | None = None


def sealed(label: Label, message: bytes) -> bytes:
    """A parcel; `message` comes without what is stored."""
    told = label.model_dump_json(exclude_defaults=True).encode()
    return b"".join((HEAD.pack(len(told)), told, message))


def opened(parcel: bytes) -> tuple[Label, memoryview]:
    """What is on a parcel, and what is in it."""
    told, message = split(parcel)
    return Label.model_validate_json(told), message


def split(data: bytes | memoryview) -> tuple[bytes, memoryview]:
    """What stands behind its length, and the rest."""
    (size,) = HEAD.unpack_from(data)
    view = memoryview(data)
    return bytes(view[HEAD.size : HEAD.size + size]), view[HEAD.size + size :]


def read_stored(stored: Stored) -> bytes:
    """The bytes.

    Raises:
        OSError: they are not there (any more).
    """
    with stored.path.open("rb", buffering=0) as file:
        data = os.pread(file.fileno(), stored.length, stored.start)
    if len(data) < stored.length:
        raise OSError(f"{stored.path} ends before {stored.start + stored.length:,} bytes")
    return data


def whole(label: Label, message: memoryview) -> bytes:
    """A message with what is stored in it."""
    head, rest = split(message)
    body = b"" if label.stored is None else read_stored(label.stored)
    return b"".join((HEAD.pack(len(head)), head, body, rest))
