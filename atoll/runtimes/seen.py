"""A server's lines as people see them."""

from __future__ import annotations

from time import monotonic
from typing import Any

from atoll.runtimes.letters import OPENING
from atoll.runtimes.lines import Line
from atoll.runtimes.post import Post
from atoll.status import utc

__all__ = ["seen"]


def seen(post: Post) -> dict[str, Any]:
    """What is asked, and where each client that takes part is; asked from any thread."""
    clients = [_client(line) for _, line in sorted(post.lines.items())]
    return {
        "asked": _asked(post, clients),
        "clients": clients,
        "admitted": len(clients),
        "connected": sum(one["connected"] for one in clients),
        "bytes_up": sum(one["bytes_up"] for one in clients),
        "bytes_down": sum(one["bytes_down"] for one in clients),
    }


def _asked(post: Post, clients: list[dict[str, Any]]) -> dict[str, Any] | None:
    question = post.question
    if question is None:
        return None
    asked = [one for one in clients if one["name"] in question.clients]
    return {
        "what": question.what,
        "since": question.since,
        "clients": len(question.clients),
        "answered": sum(one["state"] == "done" for one in asked),
        "failed": sum(one["state"] == "failed" for one in asked),
        "quorum": question.quorum,
    }


def _client(line: Line) -> dict[str, Any]:
    account = line.account
    return {
        "name": line.client,
        "connected": line.node is not None,
        "state": _state(line),
        "heard": utc(monotonic() - line.heard) if line.session else None,
        "error": None if account.fault is None else account.fault._asdict(),
        "bytes_up": account.up,
        "bytes_down": account.down,
    }


def _state(line: Line) -> str:
    """Where a client is: idle, opening, asked, working, sending, done, failed, or absent."""
    letter = line.letter
    if letter is not None and line.account.failed:
        return "failed"
    if letter is not None and line.done:
        return "done"
    if line.node is None:
        return "absent"
    if letter is None:
        return "idle"
    if letter.name.startswith(OPENING) or line.unopened:
        return "opening"
    return {"working": "working", "done": "sending"}.get(line.state, "asked")
