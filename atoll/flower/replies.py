"""Replies on their way from the SuperLink: each is fetched beside the others, whatever it is.

A site announces a message first and then uploads it, slowly or never; and what it uploads may be
no message at all. Flower's own `pull_messages` waits for each in turn, and raises for all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import httpx
from flwr.app import Array, Message
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import (
    get_object_body,
    get_object_head_values_from_object_content,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, pull_objects

from atoll.flower.engine import PART
from atoll.flower.message import data_of

__all__ = ["Replies"]

LOOK = 0.1
"""Seconds between two looks at whether an object is uploaded; more and more, up to …"""
SELDOM = 2.0
UPLOAD = 300.0
"""Seconds that a message may take from its announcement to its last byte."""
AROUND = 2**16
"""Bytes that Flower adds to the pieces of a message."""
TOLD = 500
"""Characters of a site's own reason that are passed on."""


class Replies:
    """Replies to the messages in `awaited` (their ids, and the numbers by which they are known).

    client: Flower's Runtime API.   node, run_id: whose messages they are.
    """

    def __init__(self, client: Any, node: int, run_id: int) -> None:
        self.awaited: dict[str, int] = {}
        self._client, self._node, self._run = client, Node(node_id=node), run_id
        self._object = make_pull_object_fn_protobuf(client.PullObject, self._node, run_id)
        self._come: SimpleQueue[tuple[int, bytes]] = SimpleQueue()
        self._coming = 0

    @property
    def busy(self) -> bool:
        """Whether something may come soon."""
        return bool(self.awaited) or self._coming > 0

    def look(self) -> Iterator[tuple[int, bytes]]:
        """What has come whole since: `+` and the reply, or `-` and why there is none."""
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
            number = self.awaited.pop(message.metadata.reply_to_message_id, None)
            if number is not None:
                self._coming += 1
                Thread(target=self._fetch, args=(number, tree), daemon=True).start()

    def _fetch(self, number: int, tree: ObjectTree) -> None:
        try:
            answer = self._fetched(tree)
        except Exception as error:  # whatever it is that a site has uploaded
            answer = b"-" + f"{type(error).__name__}: {error}"[:TOLD].encode(errors="replace")
        self._come.put((number, answer))

    def _fetched(self, tree: ObjectTree) -> bytes:
        names = [one.object_id for one in iterate_object_tree(tree)]
        contents = pull_objects(
            names, self._object, max_time=UPLOAD, initial_backoff=LOOK, backoff_cap=SELDOM
        )
        self._client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self._node, run_id=self._run, message_object_id=tree.object_id
            )
        )
        size = _unfolded(contents)
        if size > PART + AROUND:
            return b"-it unfolds to %d bytes" % size
        message = inflate_object_from_contents(tree.object_id, contents)
        if not isinstance(message, Message):
            return b"-it is no message"
        data = data_of(message)
        if data is None:
            why = message.error.reason if message.has_error() else "it holds nothing of ours"
            return b"-" + str(why)[:TOLD].encode(errors="replace")
        if len(data) > PART:
            return b"-it has %d bytes" % len(data)
        return b"+" + data


def _unfolded(contents: Mapping[str, bytes]) -> int:
    """Bytes of all arrays, put together: one piece may stand in them thousands of times."""
    size = 0
    for content in contents.values():
        kind, pieces, _ = get_object_head_values_from_object_content(content)
        if kind == Array.__qualname__:
            told = json.loads(get_object_body(content, Array))
            size += sum(len(contents[pieces[place]]) for place in told["arraychunk_ids"])
    return size
