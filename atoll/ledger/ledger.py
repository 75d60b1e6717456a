"""The end of a ledger, held by the one process that releases."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from atoll import __version__
from atoll.accounting import Event, Spent
from atoll.accounting.statement import finite
from atoll.disk.files import append_bytes, explained, make_folder, sweep, sync_folder, write_bytes
from atoll.disk.lock import alone
from atoll.errors import PrivacyError
from atoll.ledger.lines import FILE, HEAD, Begin, Entry, Head, Released, hash_of, raw
from atoll.ledger.read import Told, read

__all__ = ["Ledger"]


class Ledger:
    """What was spent on one data set so far; `opened` gives one."""

    def __init__(self, folder: Path, told: Told) -> None:
        self._folder, self._told = folder, told

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, *, data: str) -> Iterator[Ledger]:
        """Hold the ledger in a folder, which is begun where there is none.

        data: the fingerprint of the data set.

        Raises:
            PrivacyError: when it was changed, or is of another data set.
            RunError: when another process holds it, or it cannot be written.
        """
        make_folder(folder)
        refusal = f"another run releases under the ledger in {folder}; wait for its end"
        with alone(folder, refusal):
            sweep(folder)
            told = read(folder)
            if told is None:
                told = _begun(folder, data)
            if told.begin.data != data:
                raise PrivacyError(
                    f"the ledger in {folder} is of another data set than this run's: what was "
                    "spent on one does not count for the other; set privacy.ledger to another "
                    "folder"
                )
            _cut(folder, told)
            yield cls(folder, told)

    @property
    def told(self) -> Told:
        """All that it says."""
        return self._told

    def after(self, release: Event, delta: float, run: str | None = None) -> Spent:
        """What would be spent after one more release: over its life, or by one run."""
        line = _line(
            self._told, Entry(run=run or "", round=0, exchange=0, noise="", release=release)
        )
        runs = () if run is None else (run,)
        return Told(self._told.begin, (*self._told.lines, line), "", 0).spent(delta, *runs)

    def write(self, entry: Entry, delta: float) -> Spent:
        """A release that is about to happen; on the disk when this returns.

        One that is there already, as after a crash, is not counted twice.
        """
        line = _line(self._told, entry)
        lines = (*self._told.lines, line)
        found = Told(self._told.begin, lines, "", 0).spent(delta)
        epsilon = finite(found.epsilon)
        line = line.model_copy(update={"epsilon": epsilon, "delta": delta})
        content = raw(line)
        append_bytes(self._folder / FILE, content)
        size = self._told.size + len(content)
        _write_head(self._folder, Head(number=line.number, size=size, hash=hash_of(content)))
        self._told = Told(self._told.begin, (*self._told.lines, line), hash_of(content), size)
        return found


def _line(told: Told, entry: Entry) -> Released:
    number = len(told.lines) + 1
    return Released(
        number=number, time=_now(), entry=entry, epsilon=None, delta=0.5, previous=told.last
    )


def _begun(folder: Path, data: str) -> Told:
    begin = Begin(time=_now(), atoll=__version__, data=data)
    content = raw(begin)
    write_bytes(folder / FILE, content)
    _write_head(folder, Head(number=0, size=len(content), hash=hash_of(content)))
    return Told(begin, (), hash_of(content), len(content))


def _cut(folder: Path, told: Told) -> None:
    """Take away the piece of a line that a killed process left; let the head know the rest."""
    with explained(folder / FILE):
        if (folder / FILE).stat().st_size > told.size:
            os.truncate(folder / FILE, told.size)
    _write_head(folder, Head(number=len(told.lines), size=told.size, hash=told.last))


def _write_head(folder: Path, head: Head) -> None:
    write_bytes(folder / HEAD, raw(head))
    sync_folder(folder)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
