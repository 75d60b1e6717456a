"""Memory and processor time of groups of processes, and bytes over loopback, while they run."""

from __future__ import annotations

import resource
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
SELDOM = 0.2
"""Seconds between two looks at what is shared, where no more is resident than was before."""
PAGE = resource.getpagesize() / 2**20
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
        self._resident = dict(self.peaks)
        self._begun = self._looked = 0.0

    def look(self) -> None:
        """What it is now; at what is shared, which takes a while, where it may be a peak."""
        moment = time.monotonic()
        if moment - self._begun > BEGUN:
            self._begun, self._found = moment, list(self._members())
        resident = self._sums(lambda process: _resident((process / "statm").read_text()))
        risen = any(size > self._resident[name] for name, size in resident.items())
        if not risen and moment - self._looked < SELDOM:
            return
        self._looked = moment
        self._resident = {name: max(v, resident[name]) for name, v in self._resident.items()}
        self._now = self._sums(lambda process: _pss((process / "smaps_rollup").read_text()))
        self.peaks = {name: max(value, self._now[name]) for name, value in self.peaks.items()}

    def _sums(self, size_of: Callable[[Path], float]) -> dict[str, float]:
        found = dict.fromkeys((*self._groups, TOGETHER), 0.0)
        for name, process in self._found:
            with suppress(OSError):
                size = size_of(process)
                found[name], found[TOGETHER] = found[name] + size, found[TOGETHER] + size
        return found

    def _members(self) -> Iterator[tuple[str, Path]]:
        for process in _below(self._root):
            with suppress(psutil.Error, OSError):
                words = process.cmdline()
                for name, belongs in self._groups.items():
                    if belongs(words):
                        yield name, Path(f"/proc/{process.pid}")

    def mark(self) -> None:
        """From here on growth counts, and all that is there now does not."""
        self._marked, self.peaks = dict(self._now), dict(self._now)
        self._resident = dict.fromkeys(self._resident, 0.0)

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
    """A watch that looks fifty times a second, where there may be something to see."""
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


def _resident(statm: str) -> float:
    """MB, with all that others have too."""
    return int(statm.split()[1]) * PAGE


def _pss(rollup: str) -> float:
    """MB, of what the kernel says about a process."""
    line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) / 2**10


def _below(root: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return psutil.Process(root).children(recursive=True)
    return []
