"""What can be seen of a server from outside, looked at again and again while it runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.support.sites import Started

__all__ = ["Silence", "Witness"]

LOOK = 0.1
ENDED = "Everything is in "
"""What a server says last, and then takes its time to end."""


class Silence(NamedTuple):
    """How long nothing was said, and what was said before.

    waited: of these seconds, those in which the server wanted a core and others had them all.
    """

    seconds: float
    waited: float
    after: str

    @property
    def own(self) -> float:
        return self.seconds - self.waited


class Witness:
    """Sees sets of answers that were closed, and how long the server says nothing.

    closed: by the name of the question (`r3-e4`: round and exchange), whose answers counted.
    longest: the longest silence of a process, from its first word to the end of the run.
    """

    def __init__(self, server: Started, run: Path) -> None:
        self.closed: dict[str, tuple[str, ...]] = {}
        self.longest = Silence(0.0, 0.0, "")
        self.server, self._spool = server, run / "federation" / "spool"
        self._process, self._size = server.process.pid, 0
        self._said_at, self._waited_then = 0.0, 0.0

    def until(
        self, so: Callable[[], bool], *, seconds: float, meanwhile: Callable[[], None]
    ) -> None:
        """Look until it is so, or the server has ended."""
        end = time.monotonic() + seconds
        while not so() and self.server.process.poll() is None:
            assert time.monotonic() < end, f"waited in vain: {self.server.said[-2000:]}"
            self._look()
            meanwhile()
            time.sleep(LOOK)
        self._look()

    def _look(self) -> None:
        for path in self._spool.glob("r*-e*/closed.json"):
            try:
                self.closed[path.parent.name] = tuple(json.loads(path.read_text())["answers"])
            except FileNotFoundError:
                continue  # swept meanwhile
        self._listen()

    def _listen(self) -> None:
        now, size = time.monotonic(), len(self.server.said)
        if self.server.process.pid != self._process:
            self._process, self._said_at = self.server.process.pid, 0.0
            self._size = size
        elif self.server.process.poll() is None and ENDED not in self.server.said:
            if self._said_at:
                waited = _waited(self._process) - self._waited_then
                said = self.server.said.splitlines()
                quiet = Silence(now - self._said_at, waited, said[-1] if said else "")
                self.longest = max(self.longest, quiet, key=lambda one: one.own)
            if size != self._size:
                self._size, self._said_at = size, now
                self._waited_then = _waited(self._process)


def _waited(process: int) -> float:
    """Seconds for which the process' first thread has waited for a core, as the kernel counts."""
    try:
        return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0
