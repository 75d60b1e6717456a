"""Where the holder of a key keeps it between two questions: in memory, or in a file of its own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from atoll.disk.files import explained, write_bytes
from atoll.secagg import Moment
from atoll.secagg.wire import Reader, blob, number

__all__ = ["Folder", "Held", "Kept", "Store"]


@dataclass(frozen=True)
class Kept:
    """What is kept of one run.

    decrypted: its exchanges up to this one are over, and none of them is decrypted again; plus 1.
    exchange, attempt: those of the key.   secret: the key; empty once it was used.
    """

    decrypted: int = 0
    exchange: int = 0
    attempt: int = 0
    secret: bytes = b""

    def of(self, moment: Moment) -> bytes:
        """The key of a moment; empty where none is kept."""
        own = (moment.exchange, moment.attempt) == (self.exchange, self.attempt)
        return self.secret if own else b""

    def to_bytes(self) -> bytes:
        """The one way to write it."""
        numbers = number(self.decrypted, 8) + number(self.exchange, 8) + number(self.attempt)
        return numbers + blob(self.secret)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Kept:
        """The other way.

        Raises:
            ProtocolError: when it was changed or cut.
        """
        reader = Reader(raw, "the file with the key of encrypted sums")
        found = cls(reader.number(8), reader.number(8), reader.number(), reader.blob())
        reader.end()
        return found


class Store(Protocol):
    """One holder's keys, by run."""

    def load(self, run: str) -> Kept:
        """What is kept of a run."""

    def save(self, run: str, kept: Kept) -> None:
        """Keep that instead; it is safe afterwards."""


class Held:
    """In memory: for simulations."""

    def __init__(self) -> None:
        self._kept = dict[str, Kept]()

    def load(self, run: str) -> Kept:
        """See `Store`."""
        return self._kept.get(run, Kept())

    def save(self, run: str, kept: Kept) -> None:
        """See `Store`."""
        self._kept[run] = kept


class Folder:
    """In files that their owner alone may read: one for each run, with one key at most."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, run: str) -> Kept:
        """See `Store`.

        Raises:
            ProtocolError: when the file was changed or cut.
        """
        path = self._file(run)
        if not path.exists():
            return Kept()
        with explained(path):
            return Kept.from_bytes(path.read_bytes())

    def save(self, run: str, kept: Kept) -> None:
        """See `Store`."""
        write_bytes(self._file(run), kept.to_bytes(), mode=0o600)

    def leave(self, run: str) -> None:
        """Forget the keys of all runs but this one; what was decrypted in them stays known."""
        for path in self._path.glob("*.ckks"):
            if path == self._file(run):
                continue
            with explained(path):
                kept = Kept.from_bytes(path.read_bytes())
            if kept.secret:
                write_bytes(path, Kept(kept.decrypted).to_bytes(), mode=0o600)

    def _file(self, run: str) -> Path:
        # A run's name may be any text.
        return self._path / f"{hashlib.sha256(run.encode()).hexdigest()[:16]}.ckks"
