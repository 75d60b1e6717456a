"""Requests for messages that wait: released by a message for the same site, and by nothing else."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.proto.message_pb2 import Message, Metadata, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PushAppMessagesRequest, PushAppMessagesResponse

from atoll.flower import pulls
from atoll.flower.pulls import OBJECT, PULL, PUSH, Pulls

PATIENT = 5.0


class Link:
    """An application that keeps messages for sites, as Flower's does; it knows sites 1 and 2."""

    def __init__(self) -> None:
        self.waiting: dict[int, deque[str]] = {1: deque(), 2: deque()}
        self.objects: list[str] = []
        self.asked: list[int] = []
        self.states: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        status, answer = 200, b""
        scope["state"]["seen"] = scope["state"].get("seen", 0) + 1
        self.states.append(scope["state"])
        if scope["path"] == PUSH:
            for message in PushAppMessagesRequest.FromString(body).messages_list:
                metadata = message.metadata
                self.waiting[metadata.dst_node_id].append(metadata.message_id)
            told = PushAppMessagesResponse(objects_to_push=self.objects, session_id="s")
            answer = told.SerializeToString()
        elif scope["path"] == OBJECT:
            assert PushObjectRequest.FromString(body).session_id == "s"
        else:
            node = PullMessagesRequest.FromString(body).node.node_id
            self.asked.append(node)
            if node not in self.waiting:
                status = 401
            elif self.waiting[node]:
                answer = response(self.waiting[node].popleft())
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": answer})


def response(name: str) -> bytes:
    messages = [Message(metadata=Metadata(message_id=name))]
    return PullMessagesResponse(messages_list=messages).SerializeToString()


class Site:
    """A request of one site, and what has come back."""

    def __init__(self, held: Pulls, node: int) -> None:
        self.sent: list[Any] = []
        self._left = asyncio.Event()
        body = PullMessagesRequest(node=Node(node_id=node)).SerializeToString()
        scope = {"path": PULL, "state": {}}
        self.done = asyncio.ensure_future(held.pulled(scope, body, self._receive, self._send))

    async def _receive(self) -> Any:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    def leave(self) -> None:
        self._left.set()

    @property
    def found(self) -> tuple[int, list[str]]:
        """The status, and which messages came."""
        body = b"".join(message.get("body", b"") for message in self.sent)
        messages = PullMessagesResponse.FromString(body).messages_list
        return self.sent[0]["status"], [message.metadata.message_id for message in messages]


async def push(held: Pulls, nodes: Iterable[int]) -> None:
    messages = [Message(metadata=Metadata(dst_node_id=n, message_id=f"for {n}")) for n in nodes]
    body = PushAppMessagesRequest(messages_list=messages).SerializeToString()

    async def receive() -> Any:
        raise AssertionError("the body is all there is")

    async def send(message: Any) -> None:
        assert message.get("status", 200) == 200

    await held.pushed({"path": PUSH, "state": {}}, body, receive, send)


async def follow(held: Pulls, name: str) -> None:
    body = PushObjectRequest(object_id=name, session_id="s").SerializeToString()

    async def receive() -> Any:
        raise AssertionError("the body is all there is")

    async def send(message: Any) -> None:
        assert message.get("status", 200) == 200

    await held.followed({"path": OBJECT, "state": {}}, body, receive, send)


def tried(work: Callable[[Link, Pulls], Awaitable[None]]) -> None:
    async def within() -> None:
        link = Link()
        await asyncio.wait_for(work(link, Pulls(link)), PATIENT)

    asyncio.run(within())


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_message_releases_the_site_that_it_is_for() -> None:
    async def work(link: Link, held: Pulls) -> None:
        one, two = Site(held, 1), Site(held, 2)
        await settled()
        assert (one.sent, two.sent, link.asked) == ([], [], [1, 2])
        await push(held, [2])
        await two.done
        assert two.found == (200, ["for 2"])
        await settled()
        # The other was not even looked after.
        assert (one.sent, link.asked) == ([], [1, 2, 2])
        await push(held, [1, 2])
        await one.done
        assert one.found == (200, ["for 1"])
        # Each request went through the application unmarked.
        assert all(state == {"seen": 1} for state in link.states)

    tried(work)


def test_a_message_that_is_there_comes_at_once() -> None:
    async def work(link: Link, held: Pulls) -> None:
        await push(held, [1])
        site = Site(held, 1)
        await site.done
        assert site.found == (200, ["for 1"])
        assert link.asked == [1]

    tried(work)


def test_without_a_message_the_answer_comes_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulls, "HOLD", 0.05)

    async def work(link: Link, held: Pulls) -> None:
        site = Site(held, 1)
        await site.done
        assert site.found == (200, [])
        assert link.asked == [1, 1]
        assert held._waits == {}

    tried(work)


def test_who_is_refused_hears_it_at_once_and_silences_nobody() -> None:
    async def work(link: Link, held: Pulls) -> None:
        stranger, site = Site(held, 3), Site(held, 1)
        await stranger.done
        assert stranger.found == (401, [])
        await settled()
        assert site.sent == []
        await push(held, [1])
        await site.done
        assert site.found == (200, ["for 1"])

    tried(work)


def test_a_site_that_asks_again_has_given_up_what_it_asked_before() -> None:
    """Its first connection may be dead, and nobody has noticed: no message goes there."""

    async def work(link: Link, held: Pulls) -> None:
        lost = Site(held, 1)
        await settled()
        site = Site(held, 1)
        await lost.done
        assert lost.found == (200, [])
        await push(held, [1])
        await site.done
        assert site.found == (200, ["for 1"])

    tried(work)


def test_a_message_is_told_of_when_all_of_it_is_here() -> None:
    async def work(link: Link, held: Pulls) -> None:
        link.objects = ["a", "b"]
        site = Site(held, 1)
        await settled()
        await push(held, [1])
        # One that comes meanwhile is answered by what there is, and then waits like the other.
        link.waiting[1].clear()
        late = Site(held, 1)
        for name in ("a", "b"):
            await settled()
            assert late.sent == []
            link.waiting[1].append("for 1")
            await follow(held, name)
        await late.done
        assert late.found == (200, ["for 1"])
        await site.done
        assert held._arriving == {}

    tried(work)


def test_objects_that_never_come_hold_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulls, "HOLD", 0.1)

    async def work(link: Link, held: Pulls) -> None:
        link.objects = ["a"]
        site = Site(held, 1)
        await settled()
        await push(held, [1])
        await site.done
        assert site.found == (200, ["for 1"])
        monkeypatch.setattr(pulls, "ARRIVES", 0.0)
        assert not held._arrives(1)
        assert held._arriving == {}

    tried(work)


def test_nothing_is_taken_for_a_site_that_has_gone() -> None:
    async def work(link: Link, held: Pulls) -> None:
        site = Site(held, 1)
        await settled()
        site.leave()
        await site.done
        await push(held, [1])
        await settled()
        assert site.sent == []
        assert (list(link.waiting[1]), link.asked) == (["for 1"], [1])

    tried(work)


def test_what_is_no_request_of_flower_goes_through() -> None:
    async def work(link: Link, held: Pulls) -> None:
        asked: list[bytes] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            asked.append((await receive())["body"])

        async def send(message: Any) -> None:
            raise AssertionError(message)

        odd = Pulls(app)
        await odd.pulled({"path": PULL}, b"\xff", send, send)
        await odd.pushed({"path": PUSH}, b"\xff", send, send)
        assert asked == [b"\xff", b"\xff"]

    tried(work)
