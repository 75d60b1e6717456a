"""A worker that says nothing for long: whoever waits for it is told."""

from __future__ import annotations

import select
from collections.abc import Callable
from time import monotonic

import psutil

__all__ = ["LOOK", "Silence"]

LOOK = 1.0
"""Seconds after which it is looked again at a worker that says nothing."""
FIRST = 60.0
"""Seconds of silence that are told; then those that are twice as many, and so on."""


class Silence:
    """How long a process has neither said nor taken anything.

    doing: what it was last asked to do, for people: `it works for ada`.
    """

    def __init__(self, pid: int, *, name: str, note: Callable[[str], None]) -> None:
        self.doing = "it loads model and data"
        self._pid, self._name, self._note = pid, name, note
        self.end()

    def end(self) -> None:
        """Something came, or was taken."""
        self._since, self._told = monotonic(), FIRST

    def look(self) -> None:
        """Tell a silence that has become long."""
        quiet = monotonic() - self._since
        if quiet < self._told:
            return
        self._told = 2 * quiet
        way = f"`kill {self._pid}` ends it, where it hangs"
        if self._stopped():
            way = f"it is stopped, and `kill -CONT {self._pid}` lets it go on"
        self._note(
            f"{self._name} (process {self._pid}) has said nothing for {quiet:.0f} s: {self.doing}; "
            f"{way}"
        )

    def wait(self, descriptor: int, event: int) -> None:
        """Until a pipe can be read (POLLIN) or written (POLLOUT)."""
        poll = select.poll()
        poll.register(descriptor, event)
        while not poll.poll(1000 * LOOK):
            self.look()
        self.end()

    def _stopped(self) -> bool:
        try:
            return psutil.Process(self._pid).status() == psutil.STATUS_STOPPED
        except psutil.Error:
            return False
