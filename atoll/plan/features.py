"""Which head features a run computes and which it still holds: the cache, without the numbers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from atoll.experiment.setup import Setup
from atoll.local.features import CACHE_BYTES
from atoll.local.statistics import head_shapes

__all__ = ["Features", "features_of"]

FLOAT32 = 4


class Features:
    """Follows `atoll.local.features.feature_cache`: the least recently used leave.

    nbytes: client -> bytes of its features.   most: the most bytes that were held at once.
    """

    def __init__(self, nbytes: Callable[[str], int]) -> None:
        self._nbytes = nbytes
        self._held: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._size = 0
        self.most = 0

    def missed(self, client: str, representation: str) -> bool:
        """Ask for a client's features; whether they have to be computed."""
        key = (client, representation)
        missed = key not in self._held
        if missed:
            self._held[key] = self._nbytes(client)
            self._size += self._held[key]
            self.most = max(self.most, min(self._size, CACHE_BYTES))
        self._held.move_to_end(key)
        while self._held and self._size > CACHE_BYTES:
            self._size -= self._held.popitem(last=False)[1]
        return missed


def features_of(setup: Setup) -> Features:
    """The cache of a run, empty."""
    width = FLOAT32 * head_shapes(setup.bench).width if setup.bench.head is not None else 0
    return Features(lambda client: width * setup.data.counts[client].train)
