"""Replies on their way from the SuperLink: each is fetched beside the others, whatever it is.

A site announces a message first and then uploads it, slowly or never; and what it uploads may be
no message at all. Flower's own `pull_messages` waits for each in turn, and raises for all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Semaphore, Thread
from typing import Any, NamedTuple

import httpx
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf

from atoll.flower.arrivals import Arrival, taken_from
from atoll.flower.engine import PART
from atoll.flower.message import head_in
from atoll.flower.parcels import HEAD, LENGTH, Stored

__all__ = ["Awaited", "Replies"]

UPLOAD = 300.0
"""Seconds that a message may take from its announcement to its last byte."""
TOLD = 500
"""Characters of a site's own reason that are passed on."""
TOGETHER = 4
"""Requests at once: each is a connection that stays."""
SMALL = 2**16
"""Bytes of a body that come along; what is larger is written where the server wants it."""


class Awaited(NamedTuple):
    """The number by which a message is known, and where a large body of its reply is written."""

    number: int
    into: Stored | None = None


class Replies:
    """Replies to the messages in `awaited`, by their ids.

    client: Flower's Runtime API.   node, run_id: whose messages they are.
    shelf: where the SuperLink keeps what is large.
    """

    def __init__(self, client: Any, node: int, run_id: int, shelf: Path | None = None) -> None:
        self.awaited: dict[str, Awaited] = {}
        self.shelf = shelf
        self._client, self._node, self._run = client, Node(node_id=node), run_id
        self._turns = Semaphore(TOGETHER)
        self._ask = make_pull_object_fn_protobuf(client.PullObject, self._node, run_id)
        self._object = taken_from(shelf, self._asked)
        self._come: SimpleQueue[tuple[int, bytes]] = SimpleQueue()
        self._coming = 0

    @property
    def busy(self) -> bool:
        """Whether something may come soon."""
        return bool(self.awaited) or self._coming > 0

    def look(self) -> Iterator[tuple[int, bytes]]:
        """What has come whole since.

        `+` and the reply; `=`, bytes of the body in its file and the reply without it; or `-` and
        why there is none.
        """
        if self.awaited:
            self._begin()
        try:
            while True:
                answer = self._come.get_nowait()
                self._coming -= 1
                yield answer
        except Empty:
            return

    def _begin(self) -> None:
        request = PullAppMessagesRequest(message_ids=list(self.awaited))
        try:
            found = self._client.PullMessages(request)
        except httpx.HTTPError:
            return  # the next look may find it
        for message, tree in zip(found.messages_list, found.message_object_trees, strict=True):
            awaited = self.awaited.pop(message.metadata.reply_to_message_id, None)
            if awaited is not None:
                self._coming += 1
                Thread(target=self._fetch, args=(awaited, tree), daemon=True).start()

    def _fetch(self, awaited: Awaited, tree: ObjectTree) -> None:
        try:
            try:
                answer = self._fetched(awaited, tree)
            finally:
                # Flower forgets it then.
                with self._turns:
                    self._client.ConfirmMessageReceived(
                        ConfirmMessageReceivedRequest(
                            node=self._node, run_id=self._run, message_object_id=tree.object_id
                        )
                    )
        except Exception as error:  # whatever it is that a site has uploaded
            answer = b"-" + f"{type(error).__name__}: {error}"[:TOLD].encode(errors="replace")
        self._come.put((awaited.number, answer))

    def _asked(self, name: str) -> bytes:
        with self._turns:
            content: bytes = self._ask(name)
            return content

    def _fetched(self, awaited: Awaited, tree: ObjectTree) -> bytes:
        arrival = Arrival(tree, self._object, seconds=UPLOAD)
        head = head_in(arrival.message)
        if head is None:
            error = arrival.message.error.reason if arrival.message.has_error() else None
            return b"-" + str(error or "it holds nothing of ours")[:TOLD].encode(errors="replace")
        start = HEAD.pack(len(head)) + head
        return _put(start, arrival.body(), awaited.into)


def _put(head: bytes, body: Iterator[bytes], into: Stored | None) -> bytes:
    """A reply whose body is written into its file where it is large."""
    first = next(body, b"")
    if into is None or len(first) <= SMALL:
        parts, size = [first], len(head) + len(first)
        for part in body:
            parts, size = [*parts, part], size + len(part)
            if size > PART:
                break
        return b"+" + b"".join((head, *parts)) if size <= PART else b"-it has %d bytes" % size
    written = 0
    with os.fdopen(os.open(into.path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.seek(into.start)
        while first:
            written += len(first)
            if written > into.length:
                return b"-it has more than %d bytes" % into.length
            file.write(first)
            first = b""  # the next one may be a long time coming
            first = next(body, b"")
    return b"=" + LENGTH.pack(written) + head
