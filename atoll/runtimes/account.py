"""What is told of a client's line and of a question, beside what makes them work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from atoll.status import utc

__all__ = ["Account", "Fault", "Question"]


class Fault(NamedTuple):
    """Why a client's part was not to be had, and when."""

    time: str
    kind: str
    message: str


@dataclass
class Account:
    """One client's: bytes both ways, its last fault, and whether what it was asked failed.

    lost: why a message brought nothing back, the last time that one did.
    """

    up: int = 0
    down: int = 0
    fault: Fault | None = None
    failed: bool = False
    lost: str = ""

    def fail(self, kind: str, message: str) -> None:
        """Its part of what is asked failed."""
        self.fault, self.failed = Fault(utc(), kind, message), True


@dataclass(frozen=True)
class Question:
    """What is asked now: (what, of whom, how many answers are needed)."""

    what: str
    clients: Sequence[str]
    quorum: int
    since: str
