"""Sites that ask for messages when there are none: their answer waits until there is one.

A SuperNode that is told of no message sleeps three seconds before it asks again, so that every
question of a server would come one and a half seconds late. An answer that waits costs nothing.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.runtime_pb2 import PushAppMessagesRequest, PushAppMessagesResponse
from google.protobuf.message import DecodeError

from atoll.asgi import App, Message, Receive, Scope, Send, again

__all__ = ["HOLD", "OBJECT", "PULL", "PUSH", "Pulls"]

PULL = "/v1/fleet/pull-messages"
PUSH, OBJECT = "/v1/runtime/push-messages", "/v1/runtime/push-object"
HOLD = 20.0
"""Seconds that an answer waits: a SuperNode gives up after thirty."""
ARRIVES = 30.0
"""Seconds in which the objects of a message arrive, or it is given away without."""


@dataclass
class _Wait:
    """A request that waits; over: the same site has asked again since."""

    bell: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False


@dataclass
class _Arriving:
    """A message of the server whose objects follow it: those that are still to come."""

    nodes: set[int]
    objects: set[str]
    since: float


class Pulls:
    """Requests for messages that wait at the gate of `app`."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._waits: dict[int, list[_Wait]] = {}
        self._arriving: dict[str, _Arriving] = {}

    async def pushed(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Messages of the server; sites that wait hear of one when all of it is here."""
        said: list[Message] = []

        async def keep(message: Message) -> None:
            said.append(message)
            await send(message)

        await self._app(scope, again(body, receive), keep)
        with suppress(DecodeError):
            messages = PushAppMessagesRequest.FromString(body).messages_list
            told = PushAppMessagesResponse.FromString(_body_of(said))
            nodes = {message.metadata.dst_node_id for message in messages}
            if told.objects_to_push:
                objects = set(told.objects_to_push)
                self._arriving[told.session_id] = _Arriving(nodes, objects, monotonic())
            else:
                self._ring(nodes)

    async def followed(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """An object of such a message."""
        await self._app(scope, again(body, receive), send)
        with suppress(DecodeError):
            request = PushObjectRequest.FromString(body)
            if (whole := self._arriving.get(request.session_id)) is None:
                return
            whole.objects.discard(request.object_id)
            if not whole.objects:
                del self._arriving[request.session_id]
                self._ring(whole.nodes)

    def _ring(self, nodes: set[int]) -> None:
        for node in nodes:
            for wait in self._waits.get(node, ()):
                wait.bell.set()

    async def pulled(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """A site's request; an answer with messages, or none for a while, or that it is refused."""
        try:
            node = PullMessagesRequest.FromString(body).node.node_id
        except DecodeError:
            await self._app(scope, again(body, receive), send)
            return
        wait = _Wait()
        self._waits.setdefault(node, []).append(wait)
        left = asyncio.ensure_future(_gone(receive))
        left.add_done_callback(lambda _: wait.bell.set())
        try:
            for message in await self._found(scope, body, (node, wait), left):
                await send(message)
        finally:
            left.cancel()
            self._waits[node].remove(wait)
            if not self._waits[node]:
                del self._waits[node]

    async def _found(
        self, scope: Scope, body: bytes, place: tuple[int, _Wait], left: asyncio.Future[None]
    ) -> list[Message]:
        """What the application says at last; nothing is taken for a site that has gone."""
        (node, wait), said = place, list[Message]()
        end = monotonic() + HOLD
        while not left.done() and not wait.over:
            wait.bell.clear()
            rest = end - monotonic()
            if rest <= 0 or not said or not self._arrives(node):
                said = await self._asked(scope, body)
                if not _empty(said) or rest <= 0:
                    break
                self._supersede(node, wait)
            with suppress(TimeoutError):
                await asyncio.wait_for(wait.bell.wait(), max(rest, 0))
        return [] if left.done() else said

    def _arrives(self, node: int) -> bool:
        """Whether a message for a site is here, and not yet all of it."""
        late = monotonic() - ARRIVES
        for session in [name for name, one in self._arriving.items() if one.since < late]:
            del self._arriving[session]
        return any(node in one.nodes for one in self._arriving.values())

    def _supersede(self, node: int, wait: _Wait) -> None:
        """A site that was let in, and asks, has given up what it asked before."""
        waits = self._waits[node]
        for older in waits[: waits.index(wait)]:
            older.over = True
            older.bell.set()

    async def _asked(self, scope: Scope, body: bytes) -> list[Message]:
        said: list[Message] = []

        async def keep(message: Message) -> None:
            said.append(message)

        async def silent() -> Message:
            never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
            return await never

        # Each request is marked as it goes through the application.
        own = {**scope, "state": dict(scope.get("state", {}))}
        await self._app(own, again(body, silent), keep)
        return said


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _body_of(said: list[Message]) -> bytes:
    return b"".join(message.get("body", b"") for message in said)


def _empty(said: list[Message]) -> bool:
    """Whether an answer is that there is no message."""
    if not said or said[0].get("status") != 200:
        return False
    return not PullMessagesResponse.FromString(_body_of(said)).messages_list
