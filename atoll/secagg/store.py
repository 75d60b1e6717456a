"""Where a client's states are between steps: in memory, or in files of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from atoll.disk.files import explained, sync_folder, write_bytes
from atoll.errors import ProtocolError
from atoll.secagg.configuration import Moment
from atoll.secagg.state import ClientState, Step

__all__ = ["Folder", "Held", "Store"]

_OPEN = 2
"""Exchanges that may be under way at once: one that is opened, while the next one begins."""


class Store(Protocol):
    """One client's states, by exchange: of the attempts of one there is one, the last."""

    def load(self, moment: Moment) -> ClientState | None:
        """The state of an exchange, in whichever attempt, that was begun and is not over."""

    def save(self, state: ClientState) -> None:
        """Keep it, in place of what was kept of its exchange; one that is `OPENED` closes it."""

    def closed(self, run: str) -> int:
        """The last exchange of a run that was opened or given up, or -1."""

    def close(self, run: str, exchange: int) -> None:
        """Erase the keys of all exchanges of a run up to this one, for good."""


class Held:
    """States in memory: for simulations, where no client outlives its process."""

    def __init__(self) -> None:
        self._states, self._closed = dict[tuple[str, int], ClientState](), dict[str, int]()

    def load(self, moment: Moment) -> ClientState | None:
        """See `Store`."""
        return self._states.get((moment.run, moment.exchange))

    def save(self, state: ClientState) -> None:
        """See `Store`."""
        moment = state.configuration.moment
        if state.step == Step.OPENED:
            self.close(moment.run, moment.exchange)
        else:
            self._states[moment.run, moment.exchange] = state

    def closed(self, run: str) -> int:
        """See `Store`."""
        return self._closed.get(run, -1)

    def close(self, run: str, exchange: int) -> None:
        """See `Store`."""
        last = self._closed[run] = max(exchange, self.closed(run))
        self._states = {at: one for at, one in self._states.items() if at[0] != run or at[1] > last}


class Folder:
    """States in files that their owner alone may read, gone when an exchange is over.

    Of exchanges that were never opened, the two last ones are kept; those before are given up.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, moment: Moment) -> ClientState | None:
        """See `Store`.

        Raises:
            ProtocolError: when the file was changed or cut.
        """
        path = self._file(moment)
        if moment.exchange <= self.closed(moment.run) or not path.exists():
            return None
        with explained(path):
            return ClientState.from_bytes(path.read_bytes())

    def save(self, state: ClientState) -> None:
        """See `Store`; it is on the disk afterwards."""
        moment = state.configuration.moment
        if state.step == Step.OPENED:
            self.close(moment.run, moment.exchange)
            return
        # One file for all attempts: with the keys of the next one, those of the last are gone.
        write_bytes(self._file(moment), state.to_bytes(), mode=0o600)
        under_way = sorted(map(_exchange, self._folder(moment.run).glob("*.state")))
        self.close(moment.run, max(under_way[:-_OPEN], default=-1))

    def closed(self, run: str) -> int:
        """See `Store`."""
        path = self._mark(run)
        try:
            return int(path.read_text()) if path.exists() else -1
        except ValueError:
            raise ProtocolError(
                f"{path} was changed: which exchanges this client has opened is not known, so it "
                "takes part in none; restore the file, or begin another run"
            ) from None

    def close(self, run: str, exchange: int) -> None:
        """See `Store`; they are off the disk afterwards."""
        last = self.closed(run)
        if exchange > last:
            last = exchange
            write_bytes(self._mark(run), f"{last}\n".encode(), mode=0o600)
        folder = self._folder(run)
        _erase(path for path in folder.glob("*.state") if _exchange(path) <= last)
        if folder.exists():
            sync_folder(folder)

    def leave(self, run: str) -> None:
        """Erase the keys of every other run."""
        own = self._folder(run)
        _erase(path for path in self._path.glob("*/*.state") if path.parent != own)

    def _folder(self, run: str) -> Path:
        # A run's name may be any text.
        return self._path / hashlib.sha256(run.encode()).hexdigest()[:16]

    def _file(self, moment: Moment) -> Path:
        return self._folder(moment.run) / f"{moment.exchange:020}.state"

    def _mark(self, run: str) -> Path:
        return self._folder(run) / "opened"


def _erase(states: Iterable[Path]) -> None:
    for path in states:
        with explained(path):
            path.unlink()


def _exchange(state: Path) -> int:
    return int(state.stem)
