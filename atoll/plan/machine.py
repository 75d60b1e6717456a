"""What this machine has: cores, memory and disk, within the limits of its container."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Disk", "Machine", "disk_of", "look", "peak_rss", "rss"]

ROOT = Path("/sys/fs/cgroup")
NO_LIMIT = 2**60
"""What version 1 of control groups writes where there is no limit is about 2**63."""


@dataclass(frozen=True)
class Machine:
    """cores: that this process may run on.   quota: cores that its container pays for, None
    without a limit.   load: processes that want a core, over the last minute.
    memory, limit, free: bytes of the machine, of the container (None: no limit), and what is free
    within both.
    """

    cores: int
    quota: float | None
    load: float
    memory: int
    limit: int | None
    free: int


def look(root: Path = ROOT, own: Path = Path("/proc/self/cgroup")) -> Machine:
    """Look at the machine now."""
    memory = psutil.virtual_memory()
    groups = _groups(root, own)
    limit, left = _memory_limit(groups)
    return Machine(
        cores=len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
        quota=_quota(groups),
        load=psutil.getloadavg()[0],
        memory=memory.total,
        limit=limit,
        free=memory.available if left is None else min(memory.available, left),
    )


def _groups(root: Path, own: Path) -> list[Path]:
    """The folders of the control groups that this process is in, those around them too."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for line in lines:
        _, controllers, inner = line.split(":", 2)
        # Version 2 has one tree for all controllers; version 1 one for each, or for a few together.
        tops = [root / name for name in {controllers, *controllers.split(",")}]
        for top in tops if controllers else [root, root / "unified"]:
            place = top / inner.lstrip("/")
            # Inside a container the path may be that of the machine outside; its top is here.
            found += [one for one in (place, *place.parents) if one == top or top in one.parents]
    return [place for place in found if place.is_dir()]


def _memory_limit(groups: list[Path]) -> tuple[int | None, int | None]:
    """The least limit, and the least that is left below one."""
    limits: list[int] = []
    left: list[int] = []
    for place in groups:
        for most, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit = _number(place / most)
            if limit is not None and limit < NO_LIMIT:
                limits.append(limit)
                left.append(max(limit - (_number(place / used) or 0) + _cached(place), 0))
    return min(limits, default=None), min(left, default=None)


def _cached(place: Path) -> int:
    """Bytes of files that the system would drop for a process that needs the memory."""
    words = _words(place / "memory.stat")
    stats = dict(zip(words[::2], words[1::2], strict=False))
    return int(stats.get("total_inactive_file", stats.get("inactive_file", 0)))


def _quota(groups: list[Path]) -> float | None:
    found: list[float] = []
    for place in groups:
        words = _words(place / "cpu.max")
        if len(words) == 2 and words[0] != "max":
            found.append(int(words[0]) / int(words[1]))
        quota, period = (_number(place / f"cpu.cfs_{n}_us") for n in ("quota", "period"))
        if quota is not None and period and quota > 0:
            found.append(quota / period)
    return min(found, default=None)


def _number(path: Path) -> int | None:
    words = _words(path)
    return int(words[0]) if words and words[0].lstrip("-").isdigit() else None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except OSError:
        return []


def rss() -> int:
    """Bytes of memory that this process holds now."""
    return int(psutil.Process().memory_info().rss)


def peak_rss() -> int:
    """The most bytes that it held so far."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


@dataclass(frozen=True)
class Disk:
    """Where a path would be made: the nearest folder that is there, and its free bytes."""

    folder: Path
    free: int
    writable: bool


def disk_of(path: Path) -> Disk:
    """The disk below a path that may not be there yet."""
    whole = path.expanduser().absolute()
    folder = next(each for each in (whole, *whole.parents) if each.is_dir())
    return Disk(folder, shutil.disk_usage(folder).free, os.access(folder, os.W_OK | os.X_OK))
