"""What a site was sent last, so that less than a whole broadcast brings the next one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from atoll.core import Algorithm, Task, Tree
from atoll.servers.values import ADAPTER

__all__ = ["HELD", "Held"]

HELD = "held"
"""The kind of failure of a client that does not have what it was to build on."""


class Held:
    """The adapter of one federation, in memory: a process that begins anew is sent it whole."""

    def __init__(self, algorithms: Mapping[str, Algorithm]) -> None:
        self._algorithms = algorithms
        self._adapter: Tree | None = None

    def opened(self, task: Task, client: str) -> Task:
        """The task with the broadcast that its payload stands for.

        Raises:
            HeldError: it builds on an adapter that is not here.
        """
        downlink = self._algorithms[task.algorithm].server.downlink
        if downlink is None:
            return task
        payload = downlink.received(task.context, task.broadcast(client), self._adapter)
        if ADAPTER in payload:
            self._adapter = payload[ADAPTER].tree
        return replace(task, broadcast=lambda _: payload)
