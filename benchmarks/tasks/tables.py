"""The table of all results."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import markdown
from benchmarks.tasks.cases import CASES

__all__ = ["tables"]

Run = dict[str, Any]
ARMS = ("local", "federated", "pooled")


def tables(results: Path) -> str:
    """A row a case: the metric on everybody's test rows and on own ones, bytes and CPU seconds."""
    runs: dict[str, list[Run]] = defaultdict(list)
    for path in sorted(results.glob("*.json")):
        one = json.loads(path.read_text())
        runs[one["case"]].append(one)
    header = ["case", "model", "data", "clients", "metric", *ARMS, *(f"own: {a}" for a in ARMS),
              "seeds", "MB up", "MB down", "CPU s: rounds", "CPU s: all"]  # fmt: skip
    return markdown(header, [_row(name, runs[name]) for name in CASES if runs[name]])


def _row(name: str, runs: Sequence[Run]) -> list[object]:
    first = runs[0]
    sign = "↑" if first["higher_is_better"] else "↓"
    common = [_common(runs, arm) for arm in ARMS]
    own = [_spread([run["own"][arm]["mean"] for run in runs]) for arm in ARMS]
    return [
        name, *first["about"], f"{first['metric']} {sign}", *common, *own, len(runs),
        *(f"{_mean(runs, key) / 1e6:.1f}" for key in ("bytes_up", "bytes_down")),
        *(f"{_mean(runs, key):.0f}" for key in ("cpu_seconds_rounds", "cpu_seconds")),
    ]  # fmt: skip


def _common(runs: Sequence[Run], arm: str) -> str:
    return _spread([run["metrics"][arm][run["metric"]] for run in runs])


def _spread(values: Sequence[float | None]) -> str:
    """The mean, and the seeds' deviation where there are several."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    places = 3 if abs(statistics.fmean(known)) < 10 else 1
    mean = f"{statistics.fmean(known):.{places}f}"
    return mean if len(known) == 1 else f"{mean} ± {statistics.stdev(known):.{places}f}"


def _mean(runs: Sequence[Run], name: str) -> float:
    return statistics.fmean(run[name] for run in runs)
