"""CPU time and memory of a run with all its processes, told apart by a variable they inherit."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

__all__ = ["MARK", "cpu_seconds", "mark", "memory_mb", "processes"]

MARK = "BENCH_RUN"
TICKS = os.sysconf("SC_CLK_TCK")


def processes(run: str) -> list[Path]:
    """The /proc folders of a run's processes, daemons included."""
    wanted = f"{MARK}={run}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(folder)
        except OSError:
            continue
    return found


def cpu_seconds(run: str) -> float:
    """User and system time of the run's processes and of those that have ended."""
    ticks = 0
    for folder in processes(run):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / TICKS


def memory_mb(run: str) -> tuple[float, int]:
    """Proportional set size of all processes together, and how many there are."""
    total, count = 0, 0
    for folder in processes(run):
        try:
            lines = (folder / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
        count += 1
    return total / 1024, count


def mark(what: str) -> None:
    """Note the moment and the CPU time so far; called by a run at the start of each round."""
    line = {"what": what, "time": time.time(), "cpu": cpu_seconds(os.environ[MARK])}
    with open(os.environ["BENCH_MARKS"], "a") as stream:
        stream.write(json.dumps(line) + "\n")
