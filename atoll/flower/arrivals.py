"""A message on its way out of Flower, object by object: its head, and then chunk after chunk.

Flower would hold all chunks of a message, and join them, three times over.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from flwr.app import Message
from flwr.app.message.arraychunk import ArrayChunk
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_object_body,
    get_object_head_values_from_object_content,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
    inflate_object_from_contents,
)

__all__ = ["Arrival", "taken_from"]

LOOK = 0.05
"""Seconds between two looks at whether an object is uploaded; more and more, up to …"""
SELDOM = 2.0


class Arrival:
    """The message of an object tree; `pull` brings the content of one object.

    seconds: how long all of it may take, whose sender is still at it.
    message: without its array's bytes.
    """

    def __init__(self, tree: ObjectTree, pull: Callable[[str], bytes], *, seconds: float) -> None:
        self._object, self._end = pull, time.monotonic() + seconds
        self._known = {one.object_id for one in iterate_object_tree(tree)}
        self._contents: dict[str, bytes] = {}
        self._chunks: list[str] = []
        self._look(tree.object_id)
        chunks: dict[str, InflatableObject] = {
            name: ArrayChunk(memoryview(b"")) for name in self._chunks
        }
        found = inflate_object_from_contents(tree.object_id, self._contents, objects=chunks)
        if not isinstance(found, Message):
            raise TypeError("it is no message")
        self.message = found

    def _look(self, name: str) -> None:
        """Bring an object and those in it, but for the chunks of arrays."""
        if name not in self._known:
            raise ValueError("it holds an object that was not announced")
        content = self._contents[name] = self._pull(name)
        kind, children, _ = get_object_head_values_from_object_content(content)
        if kind == "Array":
            told = json.loads(content[content.index(b"\x00") + 1 :])
            self._chunks += [children[place] for place in told["arraychunk_ids"]]
            return
        for child in children:
            if child not in self._contents:
                self._look(child)

    def body(self) -> Iterator[bytes]:
        """The bytes of its arrays, chunk by chunk."""
        for name in self._chunks:
            if name not in self._known:
                raise ValueError("it holds a chunk that was not announced")
            yield get_object_body(self._pull(name), ArrayChunk)

    def joined(self, limit: int) -> bytes:
        """The same at once.

        Raises:
            ValueError: more than `limit` bytes: one chunk may be named thousands of times.
        """
        parts, size = list[bytes](), 0
        for part in self.body():
            size += len(part)
            if size > limit:
                raise ValueError(f"it has more than {limit:,} bytes")
            parts.append(part)
        return b"".join(parts)

    def _pull(self, name: str) -> bytes:
        pause = LOOK
        while True:
            try:
                return self._object(name)
            except ObjectUnavailableError:
                if time.monotonic() > self._end:
                    raise ObjectPullError(name, "it was not uploaded in time") from None
            time.sleep(pause)
            pause = min(2 * pause, SELDOM)


def taken_from(folder: Path | None, ask: Callable[[str], bytes]) -> Callable[[str], bytes]:
    """How a relay takes an object by its name: from the shelf, or else by asking for it.

    What is on the shelf was held against its name when it came.
    """

    def take(name: str) -> bytes:
        if folder is not None:
            with suppress(OSError):
                return (folder / name).read_bytes()
        return ask(name)

    return take
