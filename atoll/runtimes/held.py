"""What a site was sent last, so that less than a whole broadcast brings the next one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from atoll.core import Algorithm, Task, Tree
from atoll.errors import PayloadError
from atoll.servers.values import ADAPTER

__all__ = ["HELD", "Held"]

HELD = "held"
"""The kind of failure of a client that does not have what it was to build on."""


class Held:
    """The adapter of one federation, in memory: a process that begins anew is sent it whole.

    like: the names and shapes of the model's own; another one is not kept. None: whatever comes.
    """

    def __init__(self, algorithms: Mapping[str, Algorithm], like: Tree | None = None) -> None:
        self._algorithms = algorithms
        self._adapter: Tree | None = None
        self._shapes = None if like is None else _shapes(like)

    def opened(self, task: Task, client: str) -> Task:
        """The task with the broadcast that its payload stands for.

        Raises:
            HeldError: it builds on an adapter that is not here.
            PayloadError: the adapter that came is not of this site's model.
        """
        downlink = self._algorithms[task.algorithm].server.downlink
        if downlink is None:
            return task
        payload = downlink.received(task.context, task.broadcast(client), self._adapter)
        if ADAPTER in payload:
            adapter = payload[ADAPTER].tree
            if self._shapes not in (None, _shapes(adapter)):
                raise PayloadError("an adapter came that is not of this site's model")
            self._adapter = adapter
        return replace(task, broadcast=lambda _: payload)


def _shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tree.items()}
