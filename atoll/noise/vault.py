"""Where the noise of a run comes from, while the run is open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from atoll.disk.files import explained, make_folder, write_bytes
from atoll.errors import PrivacyError
from atoll.noise.secret import Secret
from atoll.noise.stream import KEY, derive

__all__ = ["Vault"]


class Vault:
    """The secret of a run whose directory is open; before and after that, one that nobody keeps.

    So what is rehearsed, as for a plan, has noise of its own, which no run repeats. A client that
    is not where its run is keeps a secret of its own.
    """

    def __init__(self) -> None:
        self._fleeting = os.urandom(KEY)
        self._secret: Secret | None = None

    def key(self, exchange: int) -> bytes:
        """The key of an exchange; see `Secret.key`."""
        if self._secret is None:
            return derive(self._fleeting, exchange)
        return self._secret.key(exchange)

    def kept(self) -> bytes:
        """The key of what is kept until the end; see `Secret.kept`."""
        return derive(self._fleeting, "kept") if self._secret is None else self._secret.kept

    def keep(self, path: Path) -> None:
        """Go on from the secret of a client, in a file; made where there is none.

        Raises:
            PrivacyError: when the file is not one that this wrote.
        """
        make_folder(path.parent)
        own = path.with_name(f"{path.name}.{os.getpid()}")
        write_bytes(own, os.urandom(KEY), mode=0o600)
        with explained(path):
            try:
                # Of several processes that begin together one makes it, and the others take it.
                with suppress(FileExistsError):
                    os.link(own, path)
            finally:
                own.unlink()
            raw = path.read_bytes()
        if len(raw) != KEY:
            raise PrivacyError(f"{path} is no secret of a client: it was changed or cut; remove it "
                               "if no run goes on that began with it")  # fmt: skip
        self._fleeting = raw

    @contextmanager
    def opened(self, path: Path) -> Iterator[Secret]:
        """The secret in a file, made where there is none, from which all noise comes meanwhile."""
        assert self._secret is None, "the secret of a run is open already"
        self._secret = Secret(path)
        try:
            yield self._secret
        finally:
            self._secret = None
