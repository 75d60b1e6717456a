"""What sites may ask of the SuperLink: the Fleet API, in messages of agreed size, and nothing else.

Flower serves its three interfaces on one port. Two of them are for the operator: who reaches the
Control API starts runs, and with them code, on the coordinator. So the public socket leads to the
Fleet API alone.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree
from google.protobuf.message import DecodeError

from atoll.flower.engine import PART

__all__ = ["BODY", "OBJECTS", "App", "gated"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

FLEET = "/v1/fleet/"
BODY = 6 * 2**20
"""Bytes of one request: Flower sends what is larger in pieces of 5 MiB."""
OBJECTS = PART // (5 * 2**20) + 16
"""Objects of one message: its pieces, and the records that hold them."""


def gated(app: App, *, port: int, tell: Callable[[str], None]) -> App:
    """`app`, of which requests that come in by `port` reach only what sites need.

    tell: hears of whoever was refused.
    """

    async def gate(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["server"][1] != port:
            await app(scope, receive, send)
            return
        who = (scope.get("client") or ("?",))[0]
        status, why = _refusal(scope)
        if not status and scope["path"] == f"{FLEET}push-messages":
            body = await _body(receive)
            receive = _again(body, receive)
            status, why = _oversized(body)
        if status:
            tell(f"a request of {who} for {scope['path'][:80]!r} is refused: {why}")
            await _answer(send, status, why)
            return
        await app(scope, receive, _watched(scope, send, who, tell))

    return gate


def _refusal(scope: Scope) -> tuple[int, str]:
    """A status above 0, and why, where a request is not for here."""
    if not scope["path"].startswith(FLEET) or scope["method"] != "POST":
        return 404, "sites reach the Fleet API alone"
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    if len(lengths) != 1 or not lengths[0].isdigit():
        return 411, "its length is not told"
    if int(lengths[0]) > BODY:
        return 413, f"{int(lengths[0]):,} bytes in one request; at most {BODY:,} are read"
    return 0, ""


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body", False):
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """The body once more, and then what else comes."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _oversized(body: bytes) -> tuple[int, str]:
    """Whether a reply announces more pieces than a message may have."""
    try:
        request = PushMessagesRequest.FromString(body)
    except DecodeError:
        return 400, "it is no message of Flower"
    number = sum(_objects(tree, OBJECTS) for tree in request.message_object_trees)
    if number > OBJECTS or len(request.messages_list) > 1:
        return 413, f"a reply of more than {OBJECTS} pieces; one message holds {PART:,} bytes"
    return 0, ""


def _objects(tree: ObjectTree, most: int) -> int:
    """Objects of a tree, counted to a little more than `most`."""
    number, waiting = 0, [tree]
    while waiting and number <= most:
        number += 1
        waiting.extend(waiting.pop().children)
    return number


async def _answer(send: Send, status: int, why: str) -> None:
    body = json.dumps({"detail": why}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _watched(scope: Scope, send: Send, who: str, tell: Callable[[str], None]) -> Send:
    """`send`, which tells of a site that the SuperLink itself turned away."""

    async def watched(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] in (401, 403, 412):
            tell(f"{who} is refused at {scope['path'].removeprefix(FLEET)}: its key is not of a "
                 "client that takes part")  # fmt: skip
        await send(message)

    return watched
