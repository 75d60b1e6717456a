"""Few objects at a time: each is in memory several times while it goes in or out.

Whoever is slow holds up nobody: who has waited a while goes without a turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Turns"]

TOGETHER = 2
"""Objects on their way through the gate at once, as far as they are quick."""
PATIENCE = 2.0
"""Seconds that one waits for others."""


class Turns:
    """Turns that are taken by requests of one event loop."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(TOGETHER)

    @asynccontextmanager
    async def turn(self, *, needed: bool) -> AsyncIterator[None]:
        """Wait for a turn, where one is needed, and have it."""
        mine = False
        if needed:
            try:
                mine = await asyncio.wait_for(self._free.acquire(), PATIENCE)
            except TimeoutError:
                mine = False
        try:
            yield
        finally:
            if mine:
                self._free.release()
