"""How a process that does not know the federation is brought into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll.errors import PayloadError
from atoll.frames import Frame
from atoll.runtimes.letters import Letter
from atoll.runtimes.spool import frames_of

__all__ = ["Opener"]


@dataclass(frozen=True)
class Opener:
    """How a process that does not know the federation is opened.

    letter: what it is sent.   taken: (client, frames of its answer) -> why it cannot take part.
    """

    letter: Letter
    taken: Callable[[str, Sequence[Frame]], str | None]
    limit: int = 2**24

    def judged(self, client: str, answer: Path) -> str | None:
        """Why a client cannot take part, by the answer that is kept there."""
        try:
            return self.taken(client, list(frames_of(answer)))
        except PayloadError as error:
            return str(error)
