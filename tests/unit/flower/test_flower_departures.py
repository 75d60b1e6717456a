"""Messages on their way into Flower: what is large goes by the shelf, where there is one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest
from flwr.app import Message
from flwr.proto.message_pb2 import PushObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PushAppMessagesResponse
from flwr.supercore.task_identity import TaskIdentity

from atoll.flower.arrivals import Arrival, taken_from
from atoll.flower.departures import pushed
from atoll.flower.message import CHUNK, content_of, head_in
from atoll.flower.shelf import Shelf

BODY = os.urandom(2 * CHUNK + 999)
HEAD = (4).to_bytes(4, "little") + b"head"


class SuperLink:
    """Takes messages as Flower's Runtime API does, into a store."""

    def __init__(self, store: Shelf) -> None:
        self.store, self.came, self.tree = store, 0, cast(Any, None)

    def PushMessages(self, request: Any) -> PushAppMessagesResponse:
        (self.tree,) = request.message_object_trees
        wanted = self.store.preregister(1, self.tree)
        return PushAppMessagesResponse(
            message_ids=[self.tree.object_id], objects_to_push=wanted, session_id="one"
        )

    def PushObject(self, request: Any) -> PushObjectResponse:
        self.came += len(request.object_content)
        self.store.put(request.object_id, request.object_content)
        return PushObjectResponse(stored=True)


def sent(store: SuperLink, shelf: Path | None) -> str:
    message = Message(content_of(HEAD + BODY), 7, "query", ttl=9.0)
    return pushed(cast(Any, store), Node(node_id=1), 1, message, shelf)


@pytest.fixture(autouse=True)
def _whose(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.mark.parametrize("by_shelf", [True, False])
def test_a_message_comes_whole_by_either_way(tmp_path: Path, by_shelf: bool) -> None:
    link = SuperLink(Shelf(tmp_path))
    assert sent(link, tmp_path if by_shelf else None) == link.tree.object_id
    assert (link.came < 2**12) == by_shelf
    # Two whole chunks, and nothing else.
    assert len(list(tmp_path.iterdir())) == 2
    pull = taken_from(None, lambda name: cast(bytes, link.store.get(name)))
    found = Arrival(link.tree, pull, seconds=1.0)
    assert (head_in(found.message), found.joined(len(BODY))) == (b"head", BODY)


def test_where_nothing_can_be_laid_down_it_is_sent(tmp_path: Path) -> None:
    link = SuperLink(Shelf(tmp_path))
    assert sent(link, tmp_path / "elsewhere")
    assert link.came > len(BODY)
