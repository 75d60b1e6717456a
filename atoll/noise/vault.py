"""Where the noise of a run comes from, while the run is open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atoll.noise.secret import Secret
from atoll.noise.stream import KEY, derive

__all__ = ["Vault"]


class Vault:
    """The secret of a run whose directory is open; before and after that, one that nobody keeps.

    So what is rehearsed, as for a plan, has noise of its own, which no run repeats.
    """

    def __init__(self) -> None:
        self._fleeting = os.urandom(KEY)
        self._secret: Secret | None = None

    def key(self, exchange: int) -> bytes:
        """The key of an exchange; see `Secret.key`."""
        if self._secret is None:
            return derive(self._fleeting, exchange)
        return self._secret.key(exchange)

    @contextmanager
    def opened(self, path: Path) -> Iterator[Secret]:
        """The secret in a file, made where there is none, from which all noise comes meanwhile."""
        assert self._secret is None, "the secret of a run is open already"
        self._secret = Secret(path)
        try:
            yield self._secret
        finally:
            self._secret = None
