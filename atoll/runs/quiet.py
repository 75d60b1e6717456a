"""A server that has nothing to say is not told from one that hangs: after a while it says so."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread
from time import monotonic
from typing import Self

__all__ = ["Quiet"]

LOOK = 0.25
LONG = 8.5
"""Seconds without a word after which there is one; who waits for clients says more, and sooner."""


class Quiet:
    """Says what is being done where nobody else has said anything; a context manager.

    doing: what it is, in words.   note: whom to tell.
    """

    def __init__(self, doing: Callable[[], str], note: Callable[[str], None]) -> None:
        self._doing, self._note = doing, note
        self._said, self._over = monotonic(), Event()
        self._thread = Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def ends(self) -> None:
        """Something was said."""
        self._said = monotonic()

    def _keep(self) -> None:
        while not self._over.wait(LOOK):
            if monotonic() - self._said > LONG:
                self.ends()
                self._note(self._doing())
