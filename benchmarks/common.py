"""What every benchmark shares: the machine in words, timed samples, dated results."""

from __future__ import annotations

import datetime
import gc
import json
import math
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["SCRATCH", "Sample", "cpu_name", "interleave", "machine", "markdown", "write_result"]

SCRATCH = Path(os.environ.get("ATOLL_BENCH_SCRATCH", "/tmp/bench-work"))
"""Where benchmarks write models and data sets that they make; nothing of it is kept."""


@dataclass(frozen=True)
class Sample:
    """Medians over repetitions, in seconds; `spread` is (largest − smallest) / median CPU."""

    cpu: float
    wall: float
    spread: float

    def per(self, count: int) -> Sample:
        """The same, divided among `count` pieces of work."""
        return Sample(self.cpu / count, self.wall / count, self.spread)


def interleave(
    arms: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    least: float = 0.3,
    sync: Callable[[], None] = lambda: None,
) -> dict[str, Sample]:
    """Time all arms in turn, A B C A B C …, so that what else the machine does meets all alike.

    least: seconds that a sample lasts at least; short work is repeated within a sample.
    """
    times = {name: max(1, math.ceil(least / _once(arm, sync)[1])) for name, arm in arms.items()}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    for _ in range(repeats):
        for name, arm in arms.items():
            gc.collect()
            samples = [_once(arm, sync) for _ in range(times[name])]
            found[name].append((_mean(s[0] for s in samples), _mean(s[1] for s in samples)))
    return {name: _median(samples) for name, samples in found.items()}


def _once(arm: Callable[[], object], sync: Callable[[], None]) -> tuple[float, float]:
    sync()
    cpu, wall = time.process_time(), time.perf_counter()
    arm()
    sync()
    return time.process_time() - cpu, time.perf_counter() - wall


def _mean(values: Any) -> float:
    return statistics.fmean(values)


def _median(samples: Sequence[tuple[float, float]]) -> Sample:
    cpu, wall = [s[0] for s in samples], [s[1] for s in samples]
    middle = statistics.median(cpu)
    return Sample(middle, statistics.median(wall), (max(cpu) - min(cpu)) / middle)


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the numbers depend on."""
    found: dict[str, Any] = {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "cores_used": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    for package in ("torch", "transformers", "numpy", "atoll"):
        found[package] = installed(package)
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def installed(package: str) -> str | None:
    """A package's version, or None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The processor's model, as Linux names it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    match = re.search(r"model name\s*:\s*(.+)", text)
    return match.group(1).strip() if match else platform.machine()


def write_result(
    folder: Path,
    name: str,
    content: Mapping[str, Any],
    *,
    device: str = "cpu",
    replaces: Path | None = None,
) -> Path:
    """`results/<name>_<machine>_<date>.json` with the machine in it.

    replaces: what this run wrote earlier; nothing else is overwritten.
    """
    about = machine(device)
    plain = re.sub(r"\([^)]*\)|@.*|\bCPU\b|\bProcessor\b", " ", about["cpu"])
    words = about.get("gpu", f"{plain} {about['cores']} cores")
    slug = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
    today = datetime.date.today().isoformat()
    path = folder / "results" / f"{name}_{slug}_{today}.json"
    path.parent.mkdir(exist_ok=True)
    number = 2
    while replaces is None and path.exists():
        path, number = path.with_name(f"{name}_{slug}_{today}-{number}.json"), number + 1
    path = replaces or path
    path.write_text(json.dumps({"date": today, "machine": about, **content}, indent=1) + "\n")
    return path


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table as a README holds it."""
    lines = [list(header), ["---"] * len(header), *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
