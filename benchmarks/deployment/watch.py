"""Memory and processor time of groups of processes, and bytes over loopback, while they run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import psutil

__all__ = ["Watch", "loopback", "watched"]

EVERY = 0.02
"""Seconds between two looks: a fold of 40 MB takes a few hundredths."""
BEGUN = 1.0
"""Seconds between two looks for processes that have begun."""
TOGETHER = "together"


def loopback() -> int:
    """Bytes that loopback has carried."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == "lo":
            return int(rest.split()[0])
    raise AssertionError("no loopback")


class Watch:
    """MB of memory (proportional set size) of groups of the processes below `root`.

    groups: by what the command line of a process tells.
    peaks: of each group since the start, and of all of them `together`.
    """

    def __init__(self, groups: Mapping[str, Callable[[Sequence[str]], bool]], root: int) -> None:
        self._groups, self._root = groups, root
        self.peaks = dict.fromkeys((*groups, TOGETHER), 0.0)
        self._now = dict(self.peaks)
        self._marked: dict[str, float] = {}
        self._found: list[tuple[str, Path]] = []
        self._looked = 0.0

    def look(self) -> None:
        """What it is now."""
        if time.monotonic() - self._looked > BEGUN:
            self._looked, self._found = time.monotonic(), list(self._members())
        now = dict.fromkeys((*self._groups, TOGETHER), 0.0)
        for name, rollup in self._found:
            with suppress(OSError):
                size = _pss(rollup.read_text())
                now[name], now[TOGETHER] = now[name] + size, now[TOGETHER] + size
        self._now = now
        self.peaks = {name: max(value, now[name]) for name, value in self.peaks.items()}

    def _members(self) -> Iterator[tuple[str, Path]]:
        for process in _below(self._root):
            with suppress(psutil.Error, OSError):
                words = process.cmdline()
                for name, belongs in self._groups.items():
                    if belongs(words):
                        yield name, Path(f"/proc/{process.pid}/smaps_rollup")

    def mark(self) -> None:
        """From here on growth counts, and all that is there now does not."""
        self._marked, self.peaks = dict(self._now), dict(self._now)

    @property
    def growth(self) -> float | None:
        """MB by which all of them together came to be above the mark, at most."""
        return self.peaks[TOGETHER] - self._marked[TOGETHER] if self._marked else None

    def seconds(self) -> float:
        """Processor time of all processes below the root, and of those that they waited for."""
        total = 0.0
        for process in _below(self._root):
            with suppress(psutil.Error, OSError):
                total += sum(process.cpu_times()[:4])
        return total


@contextmanager
def watched(groups: Mapping[str, Callable[[Sequence[str]], bool]], root: int) -> Iterator[Watch]:
    """A watch that looks fifty times a second."""
    watch, going = Watch(groups, root), True

    def look() -> None:
        while going:
            watch.look()
            time.sleep(EVERY)

    thread = Thread(target=look, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        going = False
        thread.join()


def _pss(rollup: str) -> float:
    """MB, of what the kernel says about a process."""
    line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) / 2**10


def _below(root: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return psutil.Process(root).children(recursive=True)
    return []
