"""Where a client's states are between steps: in memory, or in files of its own."""

from __future__ import annotations

import hashlib
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
    """One client's states, by exchange."""

    def load(self, moment: Moment) -> ClientState | None:
        """The state of an exchange that was begun and is not over."""

    def save(self, state: ClientState) -> None:
        """Keep it; one that is `OPENED` is forgotten, but for the number of its exchange."""

    def opened(self, run: str) -> int:
        """The last exchange of a run that was opened, or -1."""

    def forget(self, moment: Moment) -> None:
        """Erase the keys of an exchange that was given up."""


class Held:
    """States in memory: for simulations, where no client outlives its process."""

    def __init__(self) -> None:
        self._states, self._opened = dict[Moment, ClientState](), dict[str, int]()

    def load(self, moment: Moment) -> ClientState | None:
        """See `Store`."""
        return self._states.get(moment)

    def save(self, state: ClientState) -> None:
        """See `Store`."""
        moment = state.configuration.moment
        if state.step == Step.OPENED:
            last = self._opened[moment.run] = max(moment.exchange, self.opened(moment.run))
            # Other attempts of the same exchange too: none of them is opened beside it.
            self._states = {
                at: kept
                for at, kept in self._states.items()
                if at.run != moment.run or at.exchange > last
            }
        else:
            self._states[moment] = state

    def opened(self, run: str) -> int:
        """See `Store`."""
        return self._opened.get(run, -1)

    def forget(self, moment: Moment) -> None:
        """See `Store`."""
        self._states.pop(moment, None)


class Folder:
    """States in files that their owner alone may read, gone when an exchange is over.

    Of exchanges that were never opened, the two last ones are kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, moment: Moment) -> ClientState | None:
        """See `Store`.

        Raises:
            ProtocolError: when the file was changed or cut.
        """
        path = self._file(moment)
        if moment.exchange <= self.opened(moment.run) or not path.exists():
            return None
        with explained(path):
            return ClientState.from_bytes(path.read_bytes())

    def save(self, state: ClientState) -> None:
        """See `Store`; it is on the disk afterwards."""
        moment = state.configuration.moment
        last = self.opened(moment.run)
        if state.step == Step.OPENED:
            last = max(moment.exchange, last)
            write_bytes(self._mark(moment.run), f"{last}\n".encode(), mode=0o600)
        else:
            write_bytes(self._file(moment), state.to_bytes(), mode=0o600)
        self._sweep(moment.run, last)

    def opened(self, run: str) -> int:
        """See `Store`."""
        path = self._mark(run)
        try:
            return int(path.read_text()) if path.exists() else -1
        except ValueError:
            raise ProtocolError(
                f"{path} was changed: which exchanges this client has opened is not known, so it "
                "takes part in none; restore the file, or begin another run"
            ) from None

    def forget(self, moment: Moment) -> None:
        """See `Store`."""
        path = self._file(moment)
        with explained(path):
            path.unlink(missing_ok=True)
        if path.parent.exists():
            sync_folder(path.parent)

    def _sweep(self, run: str, opened: int) -> None:
        """Take away states that are over, or were given up."""
        folder = self._folder(run)
        states = sorted(folder.glob("*.state"))
        over = [path for path in states if int(path.name.split("-")[0]) <= opened]
        for path in {*over, *states[:-_OPEN]}:
            with explained(path):
                path.unlink()
        sync_folder(folder)

    def _folder(self, run: str) -> Path:
        # A run's name may be any text.
        return self._path / hashlib.sha256(run.encode()).hexdigest()[:16]

    def _file(self, moment: Moment) -> Path:
        return self._folder(moment.run) / f"{moment.exchange:020}-{moment.attempt:010}.state"

    def _mark(self, run: str) -> Path:
        return self._folder(run) / "opened"
