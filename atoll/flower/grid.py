"""The coordinator's relay: carries messages of `atoll server` over Flower's Grid.

Frames on standard input: CALL, a parcel for a node, whose frame number names the answer; NEWS,
JSON of who may connect. On standard output: ANSWER, with what `Replies.look` says; NEWS, JSON of
the nodes that are connected.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import httpx
from flwr.app import Message
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import GetNodesRequest, PullTaskInputRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity

from atoll.flower.departures import pushed
from atoll.flower.engine import PART, end_with, settled
from atoll.flower.message import MESSAGE, content_of
from atoll.flower.operator import Operator
from atoll.flower.options import Relay
from atoll.flower.parcels import opened
from atoll.flower.replies import Awaited, Replies
from atoll.flower.tasks import claims, working
from atoll.frames import Frame, Kind, pipes, read_frame, write_frame

__all__ = ["main"]

NAME = "flwr-serverapp"
LOOK = 0.1
"""Seconds between two looks for replies."""
NODES = 2.0
"""Seconds between two looks at who is connected."""
LIFE = 600.0
"""Seconds after which a message that nobody took is forgotten by Flower."""


def main(arguments: Sequence[str]) -> None:
    """Relay until the process that started this one ends."""
    relay = Relay.model_validate_json(arguments[0])
    incoming, outgoing = pipes()
    end_with(incoming)
    arrived = _listening(incoming)

    def tell(text: str) -> None:
        write_frame(outgoing, Frame(Kind.NEWS, 0, json.dumps({"told": text}).encode()))

    operator = Operator(relay, tell)
    operator.start_run()
    token = next(claims(relay, TaskType.SERVER_APP))
    with working(relay, token, NAME) as client:
        task = client.PullTaskInput(PullTaskInputRequest())
        # Flower's messages read whose they are from here.
        TaskIdentity.task_id, TaskIdentity.run_id = task.task_id, task.run.run_id
        TaskIdentity.node_id = task.context.node_id
        settled()
        replies = Replies(client, task.context.node_id, task.run.run_id, relay.shelf)
        _relayed(client, replies, operator, (arrived, outgoing))


def _listening(descriptor: int) -> Queue[Frame | None]:
    arrived: Queue[Frame | None] = Queue(maxsize=2)

    def listen() -> None:
        while (frame := read_frame(descriptor, limit=2 * PART)) is not None:
            arrived.put(frame)
        arrived.put(None)

    Thread(target=listen, daemon=True).start()
    return arrived


def _relayed(
    client: RuntimeHttpClient,
    replies: Replies,
    operator: Operator,
    ends: tuple[Queue[Frame | None], int],
) -> None:
    """Push what is to be sent, and pull what came back."""
    (arrived, outgoing), looked, known = ends, 0.0, b""
    while True:
        for frame in _waiting(arrived, LOOK if replies.busy else NODES / 4):
            if frame is None:
                sys.exit(0)
            if frame.kind is Kind.NEWS:
                operator.admit(json.loads(frame.data))
            else:
                replies.awaited |= _pushed(client, frame, outgoing, replies.shelf)
        for number, answer in replies.look():
            write_frame(outgoing, Frame(Kind.ANSWER, number, answer))
        if time.monotonic() - looked > NODES:
            looked, nodes = time.monotonic(), _nodes(client)
            if nodes != known:
                known = nodes
                write_frame(outgoing, Frame(Kind.NEWS, 0, nodes))


def _waiting(arrived: Queue[Frame | None], seconds: float) -> Iterator[Frame | None]:
    """What has arrived, waited for a little."""
    try:
        yield arrived.get(timeout=seconds)
        while True:
            yield arrived.get_nowait()
    except Empty:
        return


def _pushed(
    client: RuntimeHttpClient, frame: Frame, outgoing: int, shelf: Path | None
) -> dict[str, Awaited]:
    """Send one message; at once an answer where it could not be sent."""
    label, data = opened(frame.data)
    try:
        message = Message(content_of(data, label.stored), label.node, MESSAGE, ttl=LIFE)
        node = Node(node_id=TaskIdentity.node_id)
        name = pushed(client, node, TaskIdentity.run_id, message, shelf)
        why = "the SuperLink did not take it"
    except (httpx.HTTPError, OSError) as error:
        name, why = "", str(error)
    if not name:
        write_frame(outgoing, Frame(Kind.ANSWER, frame.number, b"-" + why.encode()))
        return {}
    return {name: Awaited(frame.number, label.into)}


def _nodes(client: RuntimeHttpClient) -> bytes:
    found: list[dict[str, Any]] = [
        {"node": node.node_id, "name": node.name, "since": node.last_activated_at}
        for node in client.GetNodes(GetNodesRequest()).nodes
    ]
    return json.dumps({"nodes": sorted(found, key=lambda one: one["node"])}).encode()
