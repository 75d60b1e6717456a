"""The secret of a run's privacy: a key for each exchange, forgotten once its release is committed.

    chain₀ from the operating system          key of exchange e = HKDF(chain_e, "key")
    chain_{e+1} = HKDF(chain_e, "next")       committed e: the file holds chain_{e+1} only
    kept from the operating system            for what a run keeps until its end

So an exchange that is asked again after a crash repeats its own noise (a second sample would be
averaged with the first), and who reads the file later cannot take the noise off what was released.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from atoll.disk.files import explained, sync_folder, write_bytes
from atoll.errors import PrivacyError
from atoll.noise.stream import KEY, derive

__all__ = ["Secret"]

_HEADER = b"atoll secret 2\n"
_NUMBER = 8


class Secret:
    """One run's secret in a file that its owner alone may read; made where there is none.

    entropy: gives that many bytes; the operating system's unless a test repeats a run.

    Raises:
        PrivacyError: when the file is not one that this class wrote.
    """

    def __init__(self, path: Path, *, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._path, self._entropy = path, entropy
        if not path.exists():
            self._next, self._chain, self._kept = 0, entropy(KEY), entropy(KEY)
            self._write()
            return
        with explained(path):
            raw = path.read_bytes()
        if not raw.startswith(_HEADER) or len(raw) != len(_HEADER) + _NUMBER + 2 * KEY:
            raise PrivacyError(
                f"{path} is no secret of a run: it was changed or cut; without it a round that was "
                "begun cannot repeat its noise; start a new run in another output_dir"
            )
        raw = raw.removeprefix(_HEADER)
        self._next = int.from_bytes(raw[:_NUMBER], "big")
        self._chain, self._kept = raw[_NUMBER:-KEY], raw[-KEY:]

    @property
    def next(self) -> int:
        """The first exchange whose key is still known."""
        return self._next

    def key(self, exchange: int) -> bytes:
        """The key of an exchange whose release is not committed.

        Raises:
            PrivacyError: when it was forgotten.
        """
        if exchange < self._next:
            raise PrivacyError(
                f"the noise of exchange {exchange} was released and its key forgotten; "
                f"{self._path} starts at exchange {self._next}"
            )
        return derive(self._chain_at(exchange), "key")

    @property
    def kept(self) -> bytes:
        """The key of what the run keeps on the disk until its end, when it is forgotten."""
        return self._kept

    def name(self, exchange: int) -> str:
        """Tells releases of one exchange apart: the same name means the same noise."""
        return derive(self._chain_at(exchange), "name")[:8].hex()

    def anew(self, exchange: int) -> None:
        """Go on at an earlier exchange, where a run fell back: what it releases is new noise."""
        self._chain, self._next = self._entropy(KEY), exchange
        self._write()

    def commit(self, exchange: int) -> None:
        """Forget the keys up to that of `exchange`: what they hid was released, and is on disk."""
        if exchange >= self._next:
            self._chain, self._next = self._chain_at(exchange + 1), exchange + 1
            self._write()

    def erase(self) -> None:
        """Forget all of it, at the end of a run."""
        with explained(self._path):
            self._path.unlink(missing_ok=True)
        sync_folder(self._path.parent)

    def _chain_at(self, exchange: int) -> bytes:
        chain = self._chain
        for _ in range(exchange - self._next):
            chain = derive(chain, "next")
        return chain

    def _write(self) -> None:
        number = self._next.to_bytes(_NUMBER, "big")
        write_bytes(self._path, _HEADER + number + self._chain + self._kept, mode=0o600)
        sync_folder(self._path.parent)
