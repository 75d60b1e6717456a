"""A message on its way into Flower, which is told of it first and then sent its objects.

Flower's own functions would hold all objects of a message at once.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PushAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.runtime import RuntimeHttpClient

from atoll.flower.engine import let_go
from atoll.flower.options import MARK, SMALL

__all__ = ["pushed"]


def pushed(
    client: RuntimeHttpClient, node: Node, run_id: int, message: Message, shelf: Path | None = None
) -> str:
    """The name of a message that Flower took whole; empty where it did not.

    shelf: where what is large is put, of which Flower is then told alone.
    """
    with no_object_id_recompute():
        name = message.metadata.__dict__["_message_id"] = message.object_id
        found = client.PushMessages(
            PushAppMessagesRequest(
                messages_list=[message_to_proto(remove_content_from_message(message))],
                message_object_trees=[get_object_tree(message)],
            )
        )
        wanted = set(found.objects_to_push)
        for each, one in get_all_nested_objects(message).items():
            if each not in wanted:
                continue
            content = _laid_down(shelf, each, one.deflate())
            request = PushObjectRequest(
                node=node, run_id=run_id, object_id=each, object_content=content,
                session_id=found.session_id,
            )  # fmt: skip
            if not client.PushObject(request).stored:
                return ""
            if len(content) > SMALL:
                let_go()
    return name if found.message_ids in ([], [name]) else ""


def _laid_down(shelf: Path | None, name: str, content: bytes) -> bytes:
    """What Flower is told of a content: all of it, or that it is on the shelf."""
    if shelf is None or len(content) <= SMALL:
        return content
    partial = shelf / f"{name}-{os.getpid()}"
    try:
        partial.write_bytes(content)
        partial.replace(shelf / name)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        return content
    return MARK
