"""A site's relay: takes messages from the SuperNode, and brings back what `atoll client` says.

Frames on standard output: CALL, a message's bytes. On standard input: ANSWER, the reply's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
from flwr.app import Message
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity

from atoll.errors import PayloadError
from atoll.flower.arrivals import Arrival, taken_from
from atoll.flower.departures import pushed
from atoll.flower.engine import PART, end_with, settled
from atoll.flower.message import content_of, head_in
from atoll.flower.options import Relay
from atoll.flower.parcels import HEAD
from atoll.flower.tasks import claims, working
from atoll.frames import Frame, Kind, pipes, read_frame, write_frame

__all__ = ["main"]

NAME = "flwr-clientapp"
UPLOAD = 60.0
"""Seconds that a message may take from the SuperNode beside us."""


def main(arguments: Sequence[str]) -> None:
    """Relay until the process that started this one ends."""
    relay = Relay.model_validate_json(arguments[0])
    incoming, outgoing = pipes()
    end_with(incoming)
    settled()
    for number, token in enumerate(claims(relay, TaskType.CLIENT_APP), start=1):
        try:
            _relayed(relay, token, number, (incoming, outgoing))
        except (httpx.HTTPError, RuntimeError) as error:
            # The server asks again; what was done for this message is kept by `atoll client`.
            sys.stderr.write(f"message {number} is lost: {error}\n")


def _relayed(relay: Relay, token: str, number: int, ends: tuple[int, int]) -> None:
    with working(relay, token, NAME) as client:
        task = client.PullTaskInput(PullTaskInputRequest())
        # Flower's messages read whose they are from here.
        TaskIdentity.task_id, TaskIdentity.run_id = task.task_id, task.run.run_id
        TaskIdentity.node_id = task.context.node_id
        node, run = Node(node_id=task.context.node_id), task.run.run_id
        message, data = _pulled(client, node, run, relay.shelf)
        write_frame(ends[1], Frame(Kind.CALL, number, data), limit=2 * PART)
        answer = read_frame(ends[0], limit=2 * PART)
        if answer is None:
            sys.exit(0)
        if answer.kind is not Kind.ANSWER or answer.number != number:
            raise PayloadError(f"a frame of kind {answer.kind.name} came, expected an answer")
        reply = Message(content_of(answer.data), reply_to=message)
        pushed(client, node, run, reply, relay.shelf)
        client.PushTaskOutput(PushTaskOutputRequest(context=task.context, sub_status="completed"))


def _pulled(
    client: RuntimeHttpClient, node: Node, run: int, shelf: Path | None
) -> tuple[Message, bytes]:
    """A message without its body, to be replied to, and our bytes in it."""
    found = client.PullMessages(PullAppMessagesRequest())
    if not found.messages_list:
        raise RuntimeError("a task came without a message")
    tree = found.message_object_trees[0]
    pull = taken_from(shelf, make_pull_object_fn_protobuf(client.PullObject, node, run))
    try:
        arrival = Arrival(tree, pull, seconds=UPLOAD)
        head = head_in(arrival.message)
        data = b"" if head is None else b"".join((HEAD.pack(len(head)), head, arrival.joined(PART)))
    except (ValueError, TypeError, LookupError) as error:  # whatever it is that a server has sent
        raise RuntimeError(f"it is no message of ours ({error})") from error
    confirm = ConfirmMessageReceivedRequest(node=node, run_id=run, message_object_id=tree.object_id)
    client.ConfirmMessageReceived(confirm)
    arrival.message.metadata.__dict__["_message_id"] = tree.object_id
    return arrival.message, data
