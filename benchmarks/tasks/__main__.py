"""Every task on a real data set: local, federated, pooled.

    python -m benchmarks.tasks DATA [--cases embedding,preference] [--seeds 0,1,2]
    python -m benchmarks.tasks --table

DATA is a folder of data sets (see README.md). Each run is a packaged recipe with some values, and
leaves a file of its own under results/; a run whose file is there is skipped.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import write_result
from benchmarks.recipes import run_recipe
from benchmarks.tasks.cases import CASES, Case
from benchmarks.tasks.tables import tables

HERE = Path(__file__).parent
KEPT = ("task", "metric", "higher_is_better", "final", "baselines", "metrics", "intervals", "own",
        "num_rounds", "exchanges", "bytes_up", "bytes_down", "trainable_parameters")  # fmt: skip


def main() -> None:
    options = _arguments()
    if options.table:
        print(tables(HERE / "results"))
        return
    for seed in options.seeds.split(","):
        for name in options.cases.split(","):
            _once(options.data, name, int(seed), options.values)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--values", nargs="*", default=[], help="KEY=VALUE for a trial, not kept")
    parser.add_argument("--table", action="store_true", help="print the table of all results")
    options = parser.parse_args()
    if options.data is None and not options.table:
        parser.error("name the folder of the data sets")
    return options


def _once(data: Path, name: str, seed: int, trial: list[str]) -> None:
    run = f"{name}-seed{seed}"
    if not trial and list((HERE / "results").glob(f"{run}_*.json")):
        print(f"{run}: done already", flush=True)
        return
    print(run, *trial, flush=True)
    found = one_run(data.resolve(), CASES[name], [f"seed={seed}", *trial])
    if trial:
        print({key: found[key] for key in ("metrics", "own", "cpu_seconds")}, flush=True)
    else:
        print(write_result(HERE, run, {"case": name, "seed": seed, **found}), flush=True)


def one_run(data: Path, case: Case, more: list[str]) -> dict[str, Any]:
    """What a case comes to, and what it cost."""
    with tempfile.TemporaryDirectory() as folder:
        values = [
            f"model.name_or_path={case.model(data)}",
            f"data.path={case.data(data, Path(folder))}",
            *case.values,
            *more,
        ]
        found = run_recipe(case.recipe, values)
    summary = found.pop("summary")
    return {
        "recipe": case.recipe, "about": case.about, "values": [*case.values, *more],
        **{key: summary[key] for key in KEPT},
        "clients": {
            name: {arm: row.get(arm) for arm in ("train", "test", "federated", "local", "pooled")}
            for name, row in summary["per_client"].items()
        },
        **found,
    }  # fmt: skip


if __name__ == "__main__":
    main()
