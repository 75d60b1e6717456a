"""A server's lines as people see them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from atoll.flower.coordinator import Place
from atoll.frames import Frame, Kind
from atoll.runtimes.account import Question
from atoll.runtimes.letters import Answer, Letter
from atoll.runtimes.lines import Line
from atoll.runtimes.post import Post
from atoll.runtimes.seen import seen
from atoll.status import utc


@pytest.fixture
def post(tmp_path: Path) -> Post:
    found = Post(Place("127.0.0.1:9"), 32 * "0", tmp_path, dict, lambda text: None)
    found.lines = {name: Line(name, 32 * "0", tmp_path / "spool") for name in ("bo", "al")}
    return found


def _letter(name: str) -> Letter:
    return Letter.of(name, [Frame(Kind.ASK, 0, b"question")])


def _seen(post: Post, client: str) -> dict[str, Any]:
    (found,) = [one for one in seen(post)["clients"] if one["name"] == client]
    return dict(found)


def _asked(line: Line) -> int:
    """The next message goes; how many bytes it has."""
    due = line.due()
    assert due is not None
    line.went(1, due[0], due[1].size)
    return due[1].size


def _says(line: Line, state: str, **facts: Any) -> None:
    assert line.letter is not None
    word = {"client": line.client, "session": "s", "letter": line.letter.name, "state": state}
    line.take(1, Answer.model_validate({**word, **facts}), b"12345")


def test_a_client_is_followed_through_its_part(post: Post) -> None:
    line = post.lines["al"]
    assert [one["name"] for one in seen(post)["clients"]] == ["al", "bo"]
    assert (_seen(post, "al")["state"], _seen(post, "al")["heard"]) == ("absent", None)
    line.connected(7, "now")
    assert _seen(post, "al")["state"] == "idle"
    line.send(_letter("opening-look"), limit=100)
    assert _seen(post, "al")["state"] == "opening"
    line.send(_letter("r1-e2"), limit=100)
    sent = _asked(line)
    assert _seen(post, "al") | {"heard": None} == {
        "name": "al", "connected": True, "state": "asked", "heard": None, "error": None,
        "bytes_up": 0, "bytes_down": sent,
    }  # fmt: skip
    _says(line, "working")
    assert (_seen(post, "al")["state"], _seen(post, "al")["bytes_up"]) == ("working", 5)
    assert _seen(post, "al")["heard"] in (utc(), utc(1))
    sent += _asked(line)
    _says(line, "done", size=50, digest="0" * 64)
    assert (_seen(post, "al")["state"], _seen(post, "al")["bytes_down"]) == ("sending", sent)
    line.account.fail("payload", "a name is wrong")
    found = _seen(post, "al")
    assert (found["state"], found["error"]["kind"]) == ("failed", "payload")
    # Asked anew, it is asked; what went wrong before is still told.
    line.send(_letter("r2-e3"), limit=100)
    found = _seen(post, "al")
    assert (found["state"], found["error"]["message"]) == ("asked", "a name is wrong")
    line.node = None
    assert _seen(post, "al")["state"] == "absent"


def test_an_answer_is_counted_for_the_question_that_is_asked(post: Post) -> None:
    assert seen(post)["asked"] is None
    post.question = Question("round 1: train", ("al", "bo"), 2, utc())
    for line in post.lines.values():
        line.connected(3, "now")
        line.send(_letter("r1-e2"), limit=100)
    line = post.lines["al"]
    _asked(line)
    _says(line, "done", size=5, digest=hashlib.sha256(b"12345").hexdigest(), piece=0)
    assert line.done
    post.lines["bo"].account.fail("policy", "no")
    asked = seen(post)["asked"]
    facts = ("what", "clients", "answered", "failed", "quorum")
    assert [asked[name] for name in facts] == ["round 1: train", 2, 1, 1, 2]
    assert (seen(post)["admitted"], seen(post)["connected"]) == (2, 2)
