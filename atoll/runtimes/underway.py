"""Messages on their way to one client, and which of them are not to be hoped for any more."""

from __future__ import annotations

from time import monotonic
from typing import NamedTuple

from atoll.runtimes.letters import Call

__all__ = ["Sent", "Underway"]

LOST = 60.0
"""Seconds after which a message without an answer is sent again …"""
SLOWEST = 20_000
"""… and one more for each so many bytes."""
OVERTAKEN = 5.0
"""Seconds after which one is sent again that was overtaken by another one's answer."""
SLOW = 20.0
"""Seconds after which others are asked for pieces beside the one that has not come."""


class Sent(NamedTuple):
    """A message on its way; until: the moment from which it counts as lost."""

    call: Call
    at: float
    until: float


class Underway:
    """Messages by the numbers under which their answers come."""

    def __init__(self) -> None:
        self._sent: dict[int, Sent] = {}

    def __len__(self) -> int:
        return len(self._sent)

    def went(self, tag: int, call: Call, nbytes: int) -> None:
        """One is on its way."""
        now = monotonic()
        self._sent[tag] = Sent(call, now, now + LOST + nbytes / SLOWEST)

    def back(self, tag: int) -> Sent | None:
        """The message that an answer is to, if it was still waited for.

        A client takes messages in order: what was sent before is lost, unless its answer is large
        and takes its time.
        """
        soon = monotonic() + OVERTAKEN
        for other, sent in self._sent.items():
            if other < tag and sent.call.fetch is None:
                self._sent[other] = sent._replace(until=min(sent.until, soon))
        return self._sent.pop(tag, None)

    def digest(self, tag: int) -> str:
        """Of the letter that one is about."""
        return self._sent[tag].call.digest if tag in self._sent else ""

    def lost(self, tag: int) -> None:
        """One has no answer."""
        self._sent.pop(tag, None)

    def clear(self) -> None:
        """All are lost."""
        self._sent.clear()

    def only_questions(self) -> None:
        """Pieces of a letter that is not asked any more are not waited for."""
        self._sent = {tag: sent for tag, sent in self._sent.items() if sent.call.piece is None}

    def about(self, digest: str) -> list[Sent]:
        """Those about one letter that are still to be hoped for; others are forgotten."""
        now = monotonic()
        self._sent = {tag: sent for tag, sent in self._sent.items() if sent.until > now}
        return [sent for sent in self._sent.values() if sent.call.digest == digest]

    @property
    def fetching(self) -> int:
        """How many bring a piece of an answer soon."""
        late = monotonic() - SLOW
        return sum(sent.call.fetch is not None and sent.at > late for sent in self._sent.values())
