"""Workload W1 in Atoll, by hand, in pfl and in Flower's simulation: time, start-up, memory."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.common import SCRATCH, markdown, write_result
from benchmarks.data import COHORT, experiment_file, federation_folder
from benchmarks.models import tiny_folder
from benchmarks.peers.watch import MARK, memory_mb

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
POPULATION, ROWS, TOKENS = 100, 32, 32
SYSTEMS = ("bare", "atoll", "atoll-one", "pfl", "flower")
TARGETS = {"cpu": "≤ 0.8", "start": "≤ 4 s", "memory": "≤ 420 MB"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5 rounds and one run of each")
    parser.add_argument("--systems", nargs="*", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--repeats", type=int)
    options = parser.parse_args()
    rounds = 5 if options.quick else 11
    repeats = options.repeats or (1 if options.quick else 3)
    python = peers_python()
    runs: dict[str, list[dict[str, Any]]] = {system: [] for system in options.systems}
    for _ in range(repeats):
        for system in options.systems:
            record = run(system, python, rounds)
            runs[system].append(record)
            print(system, {k: v for k, v in record.items() if k != "rounds"}, flush=True)
    found = {system: summary(records) for system, records in runs.items() if records}
    content = {
        "workload": {"population": POPULATION, "cohort": COHORT, "rows": ROWS, "rounds": rounds},
        "requirements": (HERE / "requirements.txt").read_text().split(),
        "summary": found,
        "runs": runs,
    }
    path = write_result(HERE, "peers-quick" if options.quick else "peers", content)
    print(f"\n{table(found)}\n\nwritten to {path}")


def peers_python() -> Path:
    """The Python of an environment with the peers in it; made where there is none."""
    folder = SCRATCH / "peers-venv"
    python, wanted = folder / "bin" / "python", HERE / "requirements.txt"
    done = folder / "installed.txt"
    if not done.is_file() or done.read_text() != wanted.read_text():
        print(f"installing {wanted} into {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", wanted], check=True)
        done.write_text(wanted.read_text())
    return python


def run(system: str, peers: Path, rounds: int) -> dict[str, Any]:
    """One run of one system in a process of its own, watched from outside."""
    data = federation_folder(POPULATION, rows=ROWS, tokens=TOKENS, tests=0)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as name:
        folder, run_id = Path(name), uuid.uuid4().hex
        file = experiment_file(
            folder / "w1.yaml", data, clients=POPULATION, num_rounds=rounds, holdout=0.0
        )
        environment = {
            **os.environ,
            MARK: run_id,
            "BENCH_MARKS": str(folder / "marks.jsonl"),
            "BENCH_ROUNDS": str(rounds),
            "BENCH_MODEL": str(tiny_folder()),
            "BENCH_DATA": str(data),
            "BENCH_FILE": str(file),
            "BENCH_GROUP": "1" if system == "atoll-one" else "auto",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1",
            "FLWR_HOME": str(folder / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        module = f"benchmarks.peers.systems.{system.split('-')[0]}"
        python = sys.executable if system.startswith(("atoll", "bare")) else peers
        log = SCRATCH / f"peers-{system}.log"
        started = time.time()
        with log.open("w") as stream:
            process = subprocess.Popen(
                [python, "-m", module], env=environment, cwd=folder, stdout=stream, stderr=stream
            )
            peak = _watch(process, run_id)
        if process.returncode:
            raise SystemExit(f"{system} failed:\n{log.read_text()[-3000:]}")
        marks = [json.loads(line) for line in (folder / "marks.jsonl").read_text().splitlines()]
    return {**_measured(marks, started), **peak}


def _watch(process: subprocess.Popen[bytes], run_id: str) -> dict[str, float]:
    """The largest memory and the most processes seen, looked up twice a second."""
    peak, most = 0.0, 0
    while process.poll() is None:
        memory, count = memory_mb(run_id)
        peak, most = max(peak, memory), max(most, count)
        time.sleep(0.5)
    return {"peak_mb": peak, "processes": most}


def _measured(marks: list[dict[str, Any]], started: float) -> dict[str, Any]:
    """Rounds between marks; the first one warms up, the last one ends with the run's own end."""
    begins = [line for line in marks if line["what"] == "round"]
    cpu = [(b["cpu"] - a["cpu"]) / COHORT for a, b in pairwise(begins)]
    wall = [(b["time"] - a["time"]) / COHORT for a, b in pairwise(begins)]
    return {
        "cpu_ms": statistics.median(cpu[1:]) * 1e3,
        "wall_ms": statistics.median(wall[1:]) * 1e3,
        "best_wall_ms": min(wall[1:]) * 1e3,
        "start_seconds": begins[0]["time"] - started,
        "start_cpu": begins[0]["cpu"],
        "rounds": {"cpu_ms": [1e3 * x for x in cpu], "wall_ms": [1e3 * x for x in wall]},
    }


def summary(records: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over runs."""
    return {
        key: statistics.median(record[key] for record in records)
        for key in records[0]
        if key != "rounds"
    }


def table(found: dict[str, dict[str, float]]) -> str:
    """The README's table."""
    header = [
        *("system", "CPU ms a client-round", f"/ bare ({TARGETS['cpu']})", "wall ms"),
        *(f"start-up s ({TARGETS['start']})", "start-up CPU s"),
        *(f"peak PSS MB ({TARGETS['memory']})", "processes"),
    ]
    bare = found.get("bare", {}).get("cpu_ms")
    lines = []
    for system, record in found.items():
        ratio = f"{record['cpu_ms'] / bare:.2f}" if bare else ""
        lines.append(
            [system, f"{record['cpu_ms']:.1f}", ratio, f"{record['wall_ms']:.1f}",
             f"{record['start_seconds']:.1f}", f"{record['start_cpu']:.1f}",
             f"{record['peak_mb']:.0f}", f"{record['processes']:.0f}"]
        )  # fmt: skip
    return markdown(header, lines)


if __name__ == "__main__":
    main()
