"""Does memory grow with the population? A fresh process a point, through the real experiment."""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import SCRATCH, markdown, write_result
from benchmarks.data import COHORT, experiment_file, federation_folder

POPULATIONS = (10, 100, 1_000, 10_000)
ROWS, TOKENS = 8, 32
LIMIT = 1.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 rounds instead of 5")
    parser.add_argument("--populations", nargs="*", type=int, default=POPULATIONS)
    parser.add_argument("--point", nargs=2, metavar=("POPULATION", "ROUNDS"), type=int)
    options = parser.parse_args()
    if options.point:
        print(json.dumps(point(*options.point)))
        return
    rounds = 2 if options.quick else 5
    found = [_fresh(population, rounds) for population in options.populations]
    first = found[0]["peak_mb"]
    for record in found:
        record["ratio"] = record["peak_mb"] / first
    kind = "scale-quick" if options.quick else "scale"
    content = {"rounds": rounds, "cohort": COHORT, "rows": ROWS, "tokens": TOKENS, "points": found}
    path = write_result(Path(__file__).parent, kind, content)
    print(f"\n{table(found)}\n\nwritten to {path}")


def _fresh(population: int, rounds: int) -> dict[str, Any]:
    """One point in a process of its own; the data is written before it starts."""
    federation_folder(population, rows=ROWS, tokens=TOKENS)
    command = [sys.executable, "-m", "benchmarks.scale", "--point", str(population), str(rounds)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{population:>6} clients: {record['peak_mb']:.0f} MB", flush=True)
    return record


def point(population: int, rounds: int) -> dict[str, Any]:
    """Prepare and run one experiment, and what this process took."""
    import torch

    from atoll.config import load
    from atoll.experiment.setup import prepare
    from atoll.runs.run import run_experiment
    from atoll.runs.where import Observer

    torch.set_num_threads(1)
    data = federation_folder(population, rows=ROWS, tokens=TOKENS)
    folder = Path(tempfile.mkdtemp(dir=SCRATCH))
    try:
        file = experiment_file(folder / "w.yaml", data, clients=population, num_rounds=rounds)
        imported = _peak_mb()
        started, cpu = time.perf_counter(), time.process_time()
        setup = prepare(load(file), note=lambda text: None)
        prepared, seconds, used = _peak_mb(), time.perf_counter() - started, time.process_time()
        after = []
        observer = Observer(round=lambda line: after.append(_peak_mb()))
        run_experiment(setup, folder / "run", observer)
    finally:
        shutil.rmtree(folder)
    return {
        "population": population,
        "imported_mb": imported,
        "prepared_mb": prepared,
        "after_round_mb": after,
        "peak_mb": _peak_mb(),
        "prepare_seconds": seconds,
        "prepare_cpu": used - cpu,
        "run_cpu": time.process_time() - used,
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(records: list[dict[str, Any]]) -> str:
    """The README's table."""
    header = ["clients", "peak MB", f"ratio (≤ {LIMIT})", "after imports", "after prepare",
              "after the last training round", "prepare CPU s", "run CPU s"]  # fmt: skip
    lines = []
    for record in records:
        trained = record["after_round_mb"][-2] if len(record["after_round_mb"]) > 1 else 0
        lines.append([
            f"{record['population']:,}", f"{record['peak_mb']:.0f}", f"{record['ratio']:.3f}",
            *(f"{record[key]:.0f}" for key in ("imported_mb", "prepared_mb")), f"{trained:.0f}",
            f"{record['prepare_cpu']:.1f}", f"{record['run_cpu']:.1f}",
        ])  # fmt: skip
    return markdown(header, lines)


if __name__ == "__main__":
    main()
