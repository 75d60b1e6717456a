"""The README's tables, from the files of all runs."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import markdown

__all__ = ["tables"]

Run = dict[str, Any]


def tables(results: Path) -> str:
    """One table for each data set: a row for each setting and Dirichlet parameter."""
    runs = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    parts = [
        f"**{data}**\n\n{_table([run for run in runs if run['data'] == data])}"
        for data in sorted({run["data"] for run in runs})
    ]
    return "\n\n".join(parts)


def _table(runs: Sequence[Run]) -> str:
    rows: dict[tuple[str, float, int], list[Run]] = defaultdict(list)
    for run in runs:
        rows[run["setting"], run["alpha"], run["rounds"][-1]["round"]].append(run)
    header = ["setting", "Dirichlet", "rounds", "seeds", "round 0", "round 5", "round 10",
              "last round", "exchanges", "MB up", "MB down", "CPU s"]  # fmt: skip
    return markdown(header, [_row(key, rows[key]) for key in sorted(rows)])


def _row(key: tuple[str, float, int], runs: Sequence[Run]) -> list[object]:
    setting, alpha, rounds = key
    met = [_at(runs, number) for number in (0, 5, 10)]
    return [
        setting, alpha, rounds, len(runs), *met, _spread([run["final"] for run in runs]),
        max(run["exchanges"] for run in runs),
        *(f"{_mean(runs, name) / 1e6:.1f}" for name in ("bytes_up", "bytes_down")),
        f"{_mean(runs, 'cpu_seconds'):.0f}",
    ]  # fmt: skip


def _at(runs: Sequence[Run], number: int) -> str:
    found = [line["accuracy"] for run in runs for line in run["rounds"] if line["round"] == number]
    found = [value for value in found if value is not None]
    return _spread(found) if found else ""


def _spread(values: Sequence[float]) -> str:
    """The mean, and how far the seeds lie from it where there are several."""
    mean = f"{statistics.fmean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.3f}"


def _mean(runs: Sequence[Run], name: str) -> float:
    return statistics.fmean(run[name] for run in runs)
