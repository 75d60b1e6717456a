"""Where a process writes what it is doing."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic
from types import TracebackType
from typing import Any, Self

import psutil

from atoll.disk.files import make_folder, write_json
from atoll.status.standing import Kind
from atoll.words import printable

__all__ = ["Board", "utc"]

LAST = 20
"""Notes, and refusals, that the file holds; the log has all."""
LOOK = 1.0
"""Seconds between two looks at what has changed."""
ALIVE = 5.0
"""Seconds after which the file is written again although nothing has."""
LONG = 2000
"""Characters of a note in the file."""
REFUSED = (" is refused", " does not take part")

Facts = Callable[[], Mapping[str, Any]]


def utc(ago: float = 0.0) -> str:
    """The time so many seconds ago, as `2026-11-29T06:39:28Z`."""
    then = datetime.fromtimestamp(datetime.now(UTC).timestamp() - ago, UTC)
    return then.isoformat(timespec="seconds").replace("+00:00", "Z")


class Board:
    """A status file and a log in `folder`; a context manager.

    The file is written whole by a thread of its own. Nothing that goes wrong here ends a run.
    """

    def __init__(self, folder: Path, kind: Kind) -> None:
        self._folder, self._kind = folder, kind
        self._facts: Facts = dict
        self._known: Mapping[str, Any] = {}
        self._notes: deque[dict[str, str]] = deque(maxlen=LAST)
        self._refusals: deque[dict[str, str]] = deque(maxlen=LAST)
        self._turn, self._over = Lock(), Event()
        self._state: dict[str, str] = {"state": "running"}
        self._written: Mapping[str, Any] = {}
        self._at, self._troubled = 0.0, False
        self._who = {
            "kind": kind.name,
            "pid": os.getpid(),
            "created": psutil.Process().create_time(),
            "since": utc(),
        }
        self._thread = Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Self:
        make_folder(self._folder)
        self._write()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        if error is None:
            self._state = {"state": "finished"}
        elif isinstance(error, KeyboardInterrupt):
            self._state = {"state": "stopped"}
        else:
            self._state = {"state": "failed", "why": printable(str(error))[:LONG]}
        self.note(": ".join(self._state.values()))
        self._write()

    def show(self, facts: Facts) -> None:
        """Have what `facts` gives stand in the file; it is asked now, and every second."""
        self._facts = facts
        self._write()

    def note(self, text: str) -> None:
        """A line of the log, which the file shows for a while."""
        time, text = utc(), printable(text)
        one = {"time": time, "text": text[:LONG]}
        with self._turn:
            self._notes.append(one)
            if any(word in text for word in REFUSED):
                self._refusals.append(one)
            with suppress(OSError), (self._folder / self._kind.log).open("ab") as log:
                log.write((f"{time} " + text.replace("\n", "\n    ") + "\n").encode())

    def _keep(self) -> None:
        while not self._over.wait(LOOK):
            self._write()

    def _write(self) -> None:
        """Write the file where something has changed, or it grows old."""
        try:
            self._known = self._facts()
        except Exception as error:
            self._trouble(error)
        try:
            found = self._found()
            if found != self._written or monotonic() - self._at > ALIVE:
                write_json(self._folder / self._kind.file, {"time": utc(), **found})
                self._written, self._at = found, monotonic()
        except Exception as error:
            self._trouble(error)

    def _trouble(self, error: Exception) -> None:
        if not self._troubled:
            self._troubled = True
            self.note(f"the status cannot be told: {type(error).__name__}: {error}")

    def _found(self) -> Mapping[str, Any]:
        with self._turn:
            told = {"refusals": list(self._refusals), "notes": list(self._notes)}
        return {**self._who, **self._state, **self._known, **told}
