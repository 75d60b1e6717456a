"""Replies fetched from the SuperLink: slow ones hold up nobody, and strange ones end nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
)

from atoll.flower import node, replies
from atoll.flower.engine import PART
from atoll.flower.message import CHUNK, content_of
from atoll.flower.parcels import LENGTH, Stored
from atoll.flower.replies import Awaited, Replies

SIZE = 2 * CHUNK + 12_345 // 256 * 256
HEAD = (4).to_bytes(4, "little") + b"head"


class SuperLink:
    """Holds replies as Flower's does: announced, and their objects, as far as they are uploaded."""

    def __init__(self) -> None:
        self.announced: list[tuple[Any, Any]] = []
        self.objects: dict[str, bytes] = {}
        self.confirmed: list[str] = []

    def add(
        self, number: int, content: RecordDict | None, *, error: Error | None = None
    ) -> Message:
        told = Metadata(
            run_id=1, message_id="", src_node_id=7, dst_node_id=1, message_type="query",
            group_id="", ttl=9.0, reply_to_message_id=f"m{number}", created_at=time.time(),
        )  # fmt: skip
        message = make_message(told, content) if error is None else make_message(told, error=error)
        self.announced.append((message_to_proto(_empty(message)), get_object_tree(message)))
        self.objects |= {
            name: one.deflate() for name, one in get_all_nested_objects(message).items()
        }
        return message

    def PullMessages(self, request: Any) -> PullAppMessagesResponse:
        wanted = [
            (message, tree) for message, tree in self.announced
            if message.metadata.reply_to_message_id in request.message_ids
        ]  # fmt: skip
        self.announced = [one for one in self.announced if one not in wanted]
        return PullAppMessagesResponse(
            messages_list=[message for message, _ in wanted],
            message_object_trees=[tree for _, tree in wanted],
        )

    def PullObject(self, request: Any) -> PullObjectResponse:
        content = self.objects.get(request.object_id)
        return PullObjectResponse(
            object_found=True, object_available=content is not None, object_content=content or b""
        )

    def ConfirmMessageReceived(self, request: Any) -> None:
        self.confirmed.append(request.message_object_id)


def _names(tree: Any) -> set[str]:
    return {tree.object_id}.union(*(_names(child) for child in tree.children))


def _empty(message: Message) -> Message:
    return make_message(message.metadata, RecordDict()) if message.has_content() else message


@pytest.fixture
def link() -> SuperLink:
    return SuperLink()


def come(
    link: SuperLink, numbers: Sequence[int], *, until: int, into: Stored | None = None
) -> dict[int, bytes]:
    """The first answers to messages of these numbers."""
    found, asked = dict[int, bytes](), Replies(link, 1, 1)
    asked.awaited = {f"m{number}": Awaited(number, into) for number in numbers}
    end = time.monotonic() + 20
    while len(found) < until:
        assert time.monotonic() < end, found
        found |= dict(asked.look())
        time.sleep(0.01)
    return found


def test_a_reply_that_is_never_uploaded_holds_up_nobody(link: SuperLink) -> None:
    slow = link.add(0, content_of(HEAD + b"slow"))
    own = set(link.objects)
    for number in (1, 2):
        link.add(number, content_of(HEAD + b"body %d" % number))
    # What others hold too, as the head, they have uploaded.
    others = {name for _, tree in link.announced[1:] for name in _names(tree)}
    held = {name: link.objects.pop(name) for name in own - others}
    assert get_object_id(slow.deflate()) in held
    asked = Replies(link, 1, 1)
    asked.awaited = {f"m{number}": Awaited(number) for number in range(3)}
    found = dict[int, bytes]()
    while len(found) < 2:
        found |= dict(asked.look())
    assert found == {1: b"+" + HEAD + b"body 1", 2: b"+" + HEAD + b"body 2"}
    assert asked.busy
    link.objects |= held
    while len(found) < 3:
        found |= dict(asked.look())
    assert found[0] == b"+" + HEAD + b"slow"
    assert not asked.busy


def test_one_that_is_given_up_is_told(link: SuperLink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "UPLOAD", 0.2)
    link.add(0, content_of(HEAD))
    link.objects.clear()
    assert come(link, [0], until=1)[0].startswith(b"-ObjectPullError: ")


def test_what_is_no_message_of_ours_is_told_and_the_rest_comes(link: SuperLink) -> None:
    number = 0
    array = Array(dtype="uint8", shape=(1,), stype="bytes", data=b"x")
    for content in (
        RecordDict(), RecordDict({"head": ConfigRecord({"atoll": b"h"})}),
        RecordDict({"head": ConfigRecord({"atoll": 1}), "body": ArrayRecord({"atoll": array})}),
        RecordDict({"head": ConfigRecord({"other": b"h"}), "body": ArrayRecord({"atoll": array})}),
        RecordDict({"head": ConfigRecord({"atoll": b"h"}), "body": ArrayRecord({"b": array})}),
    ):  # fmt: skip
        link.add(number, content)
        number += 1
    link.add(number, None, error=Error(code=0, reason=9999 * "x"))
    link.add(number + 1, content_of(HEAD + b"good"))
    found = come(link, range(number + 2), until=number + 2)
    assert {found[n] for n in range(number)} == {b"-it holds nothing of ours"}
    assert found[number] == b"-" + replies.TOLD * b"x"
    assert found[number + 1] == b"+" + HEAD + b"good"


@pytest.mark.parametrize(
    "garbage",
    [
        b"", b"garbage", b"Message  3\x00abc", b"RecordDict  0\x00", b"ArrayChunk  4\x00data",
        b"Nothing  0\x00", b"ConfigRecord  3\x00\xff\xff\xff", b"Message a,b 0\x00",
    ],
)  # fmt: skip
def test_garbage_in_the_place_of_an_object(link: SuperLink, garbage: bytes) -> None:
    message = link.add(0, content_of(HEAD + b"body"))
    for name in list(link.objects):
        link.objects[name] = garbage
    link.add(1, content_of(HEAD + b"good"))
    found = come(link, [0, 1], until=2)
    assert found[0].startswith(b"-")
    assert found[1] == b"+" + HEAD + b"good"
    assert get_object_id(message.deflate()) in link.confirmed or not garbage


def test_more_than_one_message_holds(link: SuperLink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "PART", 100)
    assert PART > 100
    link.add(0, content_of(HEAD + 100 * b"x"))
    assert come(link, [0], until=1)[0] == b"-it has 108 bytes"


def test_a_piece_that_stands_in_an_array_thousands_of_times(
    link: SuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Flower sends what is equal: a few kilobytes may say that they are a hundred gigabytes."""
    monkeypatch.setattr(replies, "PART", 10**6)
    link.add(0, content_of(HEAD + bytes(10**5)))
    link.add(1, content_of(HEAD + b"good"))
    (name,) = [one for one, data in link.objects.items() if b'"shape": [100000]' in data]
    link.objects[name] = link.objects[name].replace(b"[0]}", b"[" + 20_000 * b"0, " + b"0]}")
    found = come(link, [0, 1], until=2)
    # No more of it is read.
    assert 10**6 < int(found[0].removeprefix(b"-it has ").removesuffix(b" bytes")) < 2 * 10**6
    assert found[1] == b"+" + HEAD + b"good"


def test_a_site_puts_together_no_more_than_a_message_has(
    link: SuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a server names thousands of times; and what is no message does not end the relay."""
    monkeypatch.setattr(node, "PART", 10**6)
    link.add(0, content_of(HEAD + bytes(10**5)))
    (name,) = [one for one, data in link.objects.items() if b'"shape": [100000]' in data]
    whole = link.objects[name]
    link.objects[name] = whole.replace(b"[0]}", b"[" + 20_000 * b"0, " + b"0]}")
    for objects in ({name: link.objects[name]}, {name: b"garbage"}):
        asked = SuperLink()
        asked.announced, asked.objects = list(link.announced), link.objects | objects
        monkeypatch.setattr(asked, "PullMessages", lambda request, asked=asked: _all(asked))
        with pytest.raises(RuntimeError, match="it is no message of ours"):
            node._pulled(cast(Any, asked), Node(node_id=1), 1, None)
    link.objects[name] = whole
    monkeypatch.setattr(link, "PullMessages", lambda request: _all(link))
    message, data = node._pulled(cast(Any, link), Node(node_id=1), 1, None)
    assert data == HEAD + bytes(10**5)
    assert link.confirmed == [message.metadata.message_id]


def _all(link: SuperLink) -> PullAppMessagesResponse:
    messages, trees = zip(*link.announced, strict=True)
    return PullAppMessagesResponse(messages_list=messages, message_object_trees=trees)


@pytest.mark.parametrize("room", [SIZE, SIZE - 1])
def test_a_large_body_goes_into_its_place(link: SuperLink, tmp_path: Path, room: int) -> None:
    body = bytes(range(256)) * (SIZE // 256)
    (tmp_path / "part").write_bytes(b"12345678")
    link.add(0, content_of(HEAD + body))
    into = Stored(path=tmp_path / "part", start=4, length=room)
    found = come(link, [0], until=1, into=into)[0]
    if room < SIZE:
        assert found == b"-it has more than %d bytes" % room
        assert (tmp_path / "part").stat().st_size <= 4 + room
    else:
        assert found == b"=" + LENGTH.pack(SIZE) + HEAD
        assert (tmp_path / "part").read_bytes() == b"1234" + body


def test_a_small_body_comes_along(link: SuperLink, tmp_path: Path) -> None:
    link.add(0, content_of(HEAD + b"few"))
    into = Stored(path=tmp_path / "part", start=0, length=100)
    assert come(link, [0], until=1, into=into) == {0: b"+" + HEAD + b"few"}
    assert not (tmp_path / "part").exists()


def test_what_is_stored_is_sent_as_if_it_were_in_the_message(tmp_path: Path) -> None:
    body = bytes(range(251)) * (SIZE // 251)
    (tmp_path / "letter").write_bytes(b"before" + body + b"after")
    stored = Stored(path=tmp_path / "letter", start=6, length=len(body))
    one, other = content_of(HEAD + b"rest", stored), content_of(HEAD + body + b"rest")
    assert one.object_id == other.object_id
    mine, theirs = get_all_nested_objects(one), get_all_nested_objects(other)
    assert {k: v.deflate() for k, v in mine.items()} == {k: v.deflate() for k, v in theirs.items()}


def test_a_superlink_that_does_not_answer_now_is_asked_again(link: SuperLink) -> None:
    link.add(0, content_of(HEAD))
    answers, failures = link.PullMessages, iter([httpx.ConnectError("away"), None, None])

    def pull(request: Any) -> PullAppMessagesResponse:
        error = next(failures)
        if error:
            raise error
        return answers(request)

    link.PullMessages = pull  # type: ignore[method-assign]
    assert come(link, [0], until=1) == {0: b"+" + HEAD}
