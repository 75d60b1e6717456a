"""What a site is doing, for its status file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from atoll.errors import PolicyError
from atoll.status.board import utc

__all__ = ["Doing"]


@dataclass
class Doing:
    """Written by who works at a site, read by who tells of it.

    connected: since when messages come.   heard: when the last one came.
    round, task: what is being answered.   answered, refused: what was, last.
    """

    server: str = ""
    connected: str | None = None
    heard: str | None = None
    run: str | None = None
    round: int | None = None
    task: str | None = None
    answered: dict[str, Any] | None = None
    refused: dict[str, Any] | None = None

    def hears(self) -> None:
        """A message has come."""
        self.heard = utc()
        self.connected = self.connected or self.heard

    def begins(self, round: int, task: str) -> None:
        """Something is being answered."""
        self.round, self.task = round, task

    def ends(self, name: str) -> None:
        """It is answered, or that it cannot be."""
        self.answered = {"time": utc(), "letter": name, "round": self.round, "task": self.task}
        self.round = self.task = None

    @contextmanager
    def refusing(self, note: Callable[[str], None] = lambda text: None) -> Iterator[None]:
        """Remember, and note, what the site's own policy refuses."""
        try:
            yield
        except PolicyError as error:
            self.refused = {"time": utc(), "rule": error.rule, "why": error.why}
            note(f"refused: {error}")
            raise
