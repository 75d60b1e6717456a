"""Sites that ask for messages when there are none: their answer waits until there may be one.

A SuperNode that is told of no message sleeps three seconds before it asks again, so that every
question of a server would come one and a half seconds late. An answer that waits costs nothing.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import monotonic

from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.proto.runtime_pb2 import PushAppMessagesRequest
from google.protobuf.message import DecodeError

from atoll.flower.asgi import App, Message, Receive, Scope, Send, again

__all__ = ["HOLD", "PULL", "PUSH", "Pulls"]

PULL = "/v1/fleet/pull-messages"
PUSH = "/v1/runtime/push-messages"
HOLD = 20.0
"""Seconds that an answer waits: a SuperNode gives up after thirty."""


class Pulls:
    """Requests for messages that wait at the gate of `app`."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._bells: dict[int, set[asyncio.Event]] = {}

    async def pushed(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Messages of the server, for which sites may be waiting."""
        await self._app(scope, again(body, receive), send)
        with suppress(DecodeError):
            for message in PushAppMessagesRequest.FromString(body).messages_list:
                for bell in self._bells.get(message.metadata.dst_node_id, ()):
                    bell.set()

    async def pulled(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """A site's request; an answer with messages, or none for a while, or that it is refused."""
        try:
            node = PullMessagesRequest.FromString(body).node.node_id
        except DecodeError:
            await self._app(scope, again(body, receive), send)
            return
        bell = asyncio.Event()
        # Whoever says to be this site has a bell of its own, and silences no other.
        self._bells.setdefault(node, set()).add(bell)
        left = asyncio.ensure_future(_gone(receive))
        left.add_done_callback(lambda _: bell.set())
        try:
            for message in await self._found(scope, body, bell, left):
                await send(message)
        finally:
            left.cancel()
            self._bells[node].discard(bell)
            if not self._bells[node]:
                del self._bells[node]

    async def _found(
        self, scope: Scope, body: bytes, bell: asyncio.Event, left: asyncio.Future[None]
    ) -> list[Message]:
        """What the application says at last; nothing is taken for a site that has gone."""
        end = monotonic() + HOLD
        while not left.done():
            bell.clear()
            said = await self._asked(scope, body)
            if not _empty(said) or (rest := end - monotonic()) <= 0:
                return said
            with suppress(TimeoutError):
                await asyncio.wait_for(bell.wait(), rest)
        return []

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


def _empty(said: list[Message]) -> bool:
    """Whether an answer is that there is no message."""
    body = b"".join(message.get("body", b"") for message in said)
    if not said or said[0].get("status") != 200:
        return False
    return not PullMessagesResponse.FromString(body).messages_list
