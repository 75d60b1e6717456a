"""Which learning rate, by method and size of the model: what `atoll plan --probe` sees.

    python -m benchmarks.rates DATA [--only minilm] [--budget 30]
    python -m benchmarks.rates --table

DATA is a folder of data sets (see benchmarks/tasks). A case whose file is there is skipped.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from atoll.experiment.setup import prepare
from atoll.plan.probe import FACTORS, probe
from benchmarks.common import markdown, write_result
from benchmarks.rates.cases import Case, cases
from benchmarks.recipes import recipe_with

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--only", default="", help="a part of the names of the cases")
    parser.add_argument("--budget", type=float, default=30.0, help="seconds a case, about")
    parser.add_argument("--table", action="store_true", help="print the table of all results")
    options = parser.parse_args()
    if options.table:
        print(table([json.loads(path.read_text()) for path in sorted(_results("*"))]))
        return
    if options.data is None:
        parser.error("name the folder of the data sets")
    for case in cases(options.data.resolve()):
        if options.only in case.name and not _results(f"{case.name}_*"):
            print(case.name, flush=True)
            found = one_case(options.data.resolve(), case, options.budget)
            about = {"size": case.size, "set": case.set, "method": case.method}
            print(write_result(HERE, case.name, {**about, **found}), flush=True)


def _results(pattern: str) -> list[Path]:
    return list((HERE / "results").glob(f"{pattern}.json"))


def one_case(data: Path, case: Case, budget: float) -> dict[str, Any]:
    """What one client saw at each rate."""
    cpu = time.process_time()
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as folder:
        values = (f"data.path={case.data(data, Path(made))}", *case.values)
        setup = prepare(recipe_with(case.recipe, values, Path(folder)), note=print)
        # CPU time: how far a case comes must not depend on what else the machine does.
        found = probe(setup, budget=budget, step=print, clock=time.process_time)
    setup.bench.model.close()
    return {
        "values": list(case.values),
        "own": setup.experiment.train.learning_rate,
        "trainable_parameters": sum(v.numel() for v in setup.start.server["adapter"].values()),
        **asdict(found),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }


def table(runs: Sequence[dict[str, Any]]) -> str:
    """A row a case: the loss before, and after the longest trials at each rate."""
    factors = [f"× {factor:g}" for factor in sorted(FACTORS)]
    header = ["model", "data", "method", "steps", "before", *factors, "× 1 is", "would take"]
    return markdown(header, [_row(run) for run in runs])


def _row(run: dict[str, Any]) -> list[object]:
    steps = max(trial["steps"] for trial in run["trials"])
    cells = {}
    for trial in run["trials"]:
        if trial["diverged"] or trial["steps"] == steps:
            shown = "diverged" if trial["diverged"] else f"{trial['after']:.3f}"
            cells[round(trial["learning_rate"] / run["own"], 3)] = shown
    take = "none" if run["take"] is None else f"{run['take']:g}"
    tried = [cells.get(factor, "") for factor in sorted(FACTORS)]
    about = [run["size"], run["set"], run["method"], steps, f"{run['before']:.3f}"]
    return [*about, *tried, f"{run['own']:g}", take]


if __name__ == "__main__":
    main()
