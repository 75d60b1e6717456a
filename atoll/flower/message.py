"""Our bytes in a message of Flower, and out of one."""

from __future__ import annotations

import struct

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

__all__ = ["MESSAGE", "content_of", "data_of"]

MESSAGE = "query"
NAME = "atoll"
SIZE = struct.Struct("<I")


def content_of(data: bytes | memoryview) -> RecordDict:
    """A message's head as a record, and its body as an array, which Flower sends in pieces.

    A body that goes to many clients is stored once: its pieces are known by their content.
    """
    (size,) = SIZE.unpack_from(data)
    view = memoryview(data)
    head, body = bytes(view[SIZE.size : SIZE.size + size]), bytes(view[SIZE.size + size :])
    array = Array(dtype="uint8", shape=(len(body),), stype="bytes", data=body)
    return RecordDict({"head": ConfigRecord({NAME: head}), "body": ArrayRecord({NAME: array})})


def data_of(message: Message) -> bytes | None:
    """The bytes; None in a message that holds something else."""
    if not message.has_content():
        return None
    heads, bodies = message.content.config_records, message.content.array_records
    if set(heads) != {"head"} or set(bodies) != {"body"} or set(bodies["body"]) != {NAME}:
        return None
    head, body = heads["head"].get(NAME), bodies["body"][NAME].data
    if not isinstance(head, bytes):
        return None
    return b"".join((SIZE.pack(len(head)), head, body))
