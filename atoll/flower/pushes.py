"""What a site pushes to the SuperLink, looked at before Flower keeps it.

Flower asks who pushes. What it does not ask: whether a message is said to come from the pusher,
whether it answers one that was sent to it, how large it becomes, and what its records hold.
"""

from __future__ import annotations

from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree, PushObjectRequest
from google.protobuf.message import DecodeError

from atoll.flower.engine import PART
from atoll.flower.message import CHUNK
from atoll.flower.options import MARK

__all__ = ["OBJECTS", "RECORD", "unfit"]

OBJECTS = -(-PART // CHUNK) + 8
"""Objects of one message: its chunks, and the records that hold them."""
RECORD = 2**16
"""Bytes of an object that is no piece: records unfold to many times their bytes."""
PIECE = b"ArrayChunk "


def unfit(what: str, body: bytes) -> tuple[int, str]:
    """A status above 0, and why, where a request is not kept; `what` is the Fleet API's name."""
    try:
        if what == "push-messages":
            return _message(PushMessagesRequest.FromString(body))
        if what == "push-object":
            return _object(PushObjectRequest.FromString(body).object_content)
    except DecodeError:
        return 400, "it is no message of Flower"
    return 0, ""


def _message(request: PushMessagesRequest) -> tuple[int, str]:
    trees, messages = request.message_object_trees, request.messages_list
    if len(trees) != 1 or len(messages) != 1:
        return 400, f"{len(messages)} messages in one request"
    if _objects(trees[0], OBJECTS) > OBJECTS:
        return 413, f"a reply of more than {OBJECTS} pieces; one message holds {PART:,} bytes"
    told = messages[0].metadata
    if told.src_node_id != request.node.node_id or not told.reply_to_message_id:
        return 403, "a message that answers none, or is said to come from somebody else"
    return 0, ""


def _object(content: bytes) -> tuple[int, str]:
    if content == MARK:
        return 400, "it names what others have sent"
    if len(content) > RECORD and not content.startswith(PIECE):
        return 413, f"a record of {len(content):,} bytes; at most {RECORD:,} are kept"
    return 0, ""


def _objects(tree: ObjectTree, most: int) -> int:
    """Objects of a tree, counted to a little more than `most`."""
    number, waiting = 0, [tree]
    while waiting and number <= most:
        number += 1
        waiting.extend(waiting.pop().children)
    return number
