"""Peak memory of groups of processes, and bytes over loopback, while something runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import psutil

__all__ = ["Peaks", "loopback", "watched"]

EVERY = 0.1

Peaks = dict[str, float]


def loopback() -> int:
    """Bytes that loopback has carried."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == "lo":
            return int(rest.split()[0])
    raise AssertionError("no loopback")


@contextmanager
def watched(groups: Mapping[str, Callable[[Sequence[str]], bool]], root: int) -> Iterator[Peaks]:
    """Peak MB of memory (proportional set size) of each group below process `root`.

    groups: by what the command line of a process tells.
    """
    peaks: Peaks = dict.fromkeys(groups, 0.0)
    going = True

    def look() -> None:
        while going:
            now = dict.fromkeys(groups, 0.0)
            for process in _below(root):
                with suppress(psutil.Error, OSError):
                    words = process.cmdline()
                    for name, belongs in groups.items():
                        if belongs(words):
                            now[name] += process.memory_full_info().pss / 2**20
            for name, value in now.items():
                peaks[name] = max(peaks[name], value)
            time.sleep(EVERY)

    thread = Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        going = False
        thread.join()


def _below(root: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return psutil.Process(root).children(recursive=True)
    return []
