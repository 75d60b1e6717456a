"""What sites may ask of the SuperLink: the Fleet API, in messages of agreed size, and nothing else.

Flower serves its three interfaces on one port. Two of them are for the operator: who reaches the
Control API starts runs, and with them code, on the coordinator. So the public socket leads to the
Fleet API alone, whose paths are listed here: nothing else gets through, however it is written.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from atoll.asgi import App, Message, Receive, Scope, Send, again, whole
from atoll.flower.callers import Callers
from atoll.flower.engine import let_go
from atoll.flower.pulls import OBJECT, PULL, PUSH, Pulls
from atoll.flower.pushes import unfit
from atoll.flower.turns import Turns

__all__ = ["BODY", "UNKNOWN", "gated"]

FLEET = "/v1/fleet/"
PATHS = frozenset(
    FLEET + name
    for name in (
        "register-node", "activate-node", "deactivate-node", "unregister-node",
        "send-node-heartbeat", "pull-messages", "push-messages", "get-run", "get-fab",
        "push-object", "pull-object", "confirm-message-received",
    )
)  # fmt: skip
LARGE = frozenset({FLEET + "push-object", FLEET + "pull-object"})
BODY = 6 * 2**20
"""Bytes of one request: Flower sends what is larger in pieces of 5 MiB."""
UNKNOWN = 2**16
"""Bytes of a request that are read before it is known whose it is."""
SLICE = 2**16
"""Bytes that are passed on at once: TLS keeps a buffer of that size for each connection."""
ALTERED = (
    "it is not as the key that it names has signed it; where it comes from a site, bring that to "
    "the server's version of Atoll, and see that nothing on the way rewrites what it sends"
)
WAIT, SLOWEST = 30.0, 20_000
"""A request has so many seconds to come in, and one more for each so many bytes."""


def gated(app: App, *, port: int, callers: Callers, tell: Callable[[str], None]) -> App:
    """`app`, of which requests that come in by `port` reach only what sites need.

    callers: who may connect.   tell: hears of whoever was refused.
    """
    pulls, turns = Pulls(app), Turns()

    async def gate(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["server"][1] != port:
            if scope.get("path") == PUSH:
                await pulls.pushed(scope, await whole(receive), receive, send)
            elif scope.get("path") == OBJECT:
                body = await whole(receive)
                await pulls.followed(scope, body, receive, send)
                if len(body) > SLICE:
                    let_go()
            else:
                await app(scope, receive, send)
            return
        who = (scope.get("client") or ("?",))[0]
        if scope["type"] != "http":
            tell(f"a connection of {who} for {scope['path'][:80]!r} is refused: no web sockets")
            await send({"type": "websocket.close"})
            return
        refused = _refusal(scope)
        if not refused[0] and not await callers.are_told():
            # A site that was quicker than the operator tries again.
            await _answer(send, 503, "the server is starting")
            return
        async with turns.turn(needed=scope["path"] in LARGE):
            body, status, why = await _body(scope, receive, callers, refused)
            if status:
                tell(f"a request of {who} for {scope['path'][:80]!r} is refused: {why}")
                await _answer(send, status, why)
            else:
                await passed(scope, body, receive, _watched(scope, send, who, tell))

    async def passed(scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        if scope["path"] == PULL:
            await pulls.pulled(scope, body, receive, send)
        else:
            await app(scope, again(body, receive), send)
        if scope["path"] in LARGE:
            let_go()

    return gate


def _refusal(scope: Scope) -> tuple[int, str]:
    """A status above 0, and why, where a request is not for here."""
    if scope["path"] not in PATHS or scope["method"] != "POST":
        return 404, "sites reach the Fleet API alone"
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    cut = any(name == b"transfer-encoding" for name, _ in scope["headers"])
    if cut or len(lengths) != 1 or not lengths[0].isdigit():
        return 411, "its length is not told"
    if len(lengths[0]) > 12 or _length(scope) > BODY:
        return 413, f"{lengths[0][:20].decode()} bytes in one request; at most {BODY:,} are read"
    return 0, ""


async def _body(
    scope: Scope, receive: Receive, callers: Callers, refused: tuple[int, str]
) -> tuple[bytes, int, str]:
    """What a request holds, or a status above 0 and why it is refused; `refused`: so far."""
    status, why = refused
    if not status and callers.have_keys and _length(scope) > UNKNOWN:
        known = await callers.signed(scope["headers"])
        status, why = (0, "") if known else (401, "a large request without a client's key")
    if status:
        return b"", status, why
    try:
        body = await asyncio.wait_for(whole(receive), WAIT + _length(scope) / SLOWEST)
    except TimeoutError:
        return b"", 408, "it came in too slowly"
    if callers.have_keys and await callers.altered(scope["headers"], scope["path"], body):
        return b"", 401, ALTERED
    return body, *unfit(scope["path"].removeprefix(FLEET), body)


def _length(scope: Scope) -> int:
    return next(int(value) for name, value in scope["headers"] if name == b"content-length")


async def _answer(send: Send, status: int, why: str) -> None:
    body = json.dumps({"detail": why}).encode()
    # What was not read is not taken for another request.
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)),
               (b"connection", b"close")]  # fmt: skip
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _watched(scope: Scope, send: Send, who: str, tell: Callable[[str], None]) -> Send:
    """`send`, which tells of a site that the SuperLink itself turned away."""

    async def watched(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] in (401, 403, 412):
            tell(f"{who} is refused at {scope['path'].removeprefix(FLEET)}: its key is not of a "
                 "client that takes part, or is in use")  # fmt: skip
        body = memoryview(message.get("body", b""))
        while len(body) > SLICE:
            await send({**message, "body": bytes(body[:SLICE]), "more_body": True})
            body = body[SLICE:]
        await send({**message, "body": bytes(body)} if "body" in message else message)

    return watched
