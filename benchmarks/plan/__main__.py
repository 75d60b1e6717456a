"""Is what `atoll plan` says what `atoll run` takes? Each in a process of its own."""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import SCRATCH, markdown, write_result
from benchmarks.plan.cases import Case, cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="a folder with trec, banking77 and gsm8k")
    parser.add_argument("--only", nargs="*", type=int, help="numbers of the cases to look at")
    parser.add_argument("--do", choices=["plan", "run"], help=argparse.SUPPRESS)
    parser.add_argument("--point", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.do:
        file, *values = options.point
        found = planned(file, values) if options.do == "plan" else ran(file, values)
        print("\n" + json.dumps(found))
        return
    chosen = [
        one
        for i, one in enumerate(cases(options.data))
        if options.only is None or i in options.only
    ]
    records = []
    for case in chosen:
        records.append(_compared(options.data, case))
        print(table(records[-1:]), flush=True)
    path = write_result(Path(__file__).parent, "plan", {"cases": records})
    print(f"\n{table(records)}\n\nwritten to {path}")


def _compared(data: Path, case: Case) -> dict[str, Any]:
    """The plan, the run, and the plan again: other work on the machine comes and goes."""
    plans = [_fresh(data, "plan", case)]
    run = _fresh(data, "run", case)
    plans.append(_fresh(data, "plan", case))
    return {"case": case.name, "values": list(case.values), "plans": plans, "run": run}


def _fresh(data: Path, what: str, case: Case) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.plan", str(data), "--do", what, "--point"]
    done = subprocess.run(
        [*command, str(case.file), *case.values], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def planned(file: str, values: Sequence[str]) -> dict[str, Any]:
    """What the plan says."""
    from atoll.config import load
    from atoll.experiment.setup import prepare
    from atoll.plan.plan import make_plan

    begun = time.perf_counter()
    setup = prepare(load(file, overrides=values), note=lambda text: None)
    made = make_plan(setup, Path("runs/plan"))
    assert made.seconds is not None, "the cases fit into memory"
    return {
        "bytes_up": [one.bytes_up for one in made.rounds],
        "bytes_down": [one.bytes_down for one in made.rounds],
        "exchanges": sum(one.exchanges for one in made.rounds),
        "parameters": made.trainable_parameters,
        "memory": made.memory.peak,
        "during": made.memory.during,
        "disk": sum(made.disk.values()),
        "wall": {name: one.wall for name, one in made.seconds.items()},
        "cpu": {name: one.cpu for name, one in made.seconds.items()},
        "took": time.perf_counter() - begun,
    }


def ran(file: str, values: Sequence[str]) -> dict[str, Any]:
    """What the run takes, as the process sees it."""
    import torch

    from atoll.config import load
    from atoll.experiment.setup import prepare
    from atoll.runs.run import run_experiment
    from atoll.runs.where import Observer

    torch.set_num_threads(1)
    marks: list[tuple[str, float, float]] = []

    def mark(what: str) -> None:
        marks.append((what, time.perf_counter(), time.process_time()))

    setup = prepare(load(file, overrides=values), note=lambda text: None)
    folder = Path(tempfile.mkdtemp(dir=SCRATCH))
    try:
        mark("start")
        observer = Observer(
            step=lambda what, done, total: mark(f"{what} {done}/{total}"),
            round=lambda line: mark("round"),
        )
        summary = run_experiment(setup, folder / "run", observer)
        mark("end")
        size = sum(path.stat().st_size for path in (folder / "run").rglob("*") if path.is_file())
        lines = (folder / "run" / "rounds.jsonl").read_text().splitlines()
    finally:
        shutil.rmtree(folder)
    rounds = [json.loads(line) for line in lines]
    return {
        "bytes_up": [line["bytes_up"] for line in rounds],
        "bytes_down": [line["bytes_down"] for line in rounds],
        "exchanges": summary["exchanges"],
        "parameters": summary["trainable_parameters"],
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "disk": size,
        "wall": _phases(marks, 1),
        "cpu": _phases(marks, 2),
    }


def _phases(marks: Sequence[tuple[str, float, float]], clock: int) -> dict[str, float]:
    """Seconds of the rounds, of each baseline's training, and of all that is after the rounds."""
    start, end = marks[0][clock], marks[-1][clock]
    last = [one for one in marks if one[0] == "round"][-1][clock]
    return {"rounds": last - start, "after": end - last, "all": end - start}


def table(records: Sequence[dict[str, Any]]) -> str:
    """The README's table."""
    header = ["case", "bytes", "memory: plan / run (MB)", "CPU of rounds (s)", "CPU after (s)",
              "wall in all (s)", "disk (MB)"]  # fmt: skip
    return markdown(header, [_row(one) for one in records])


def _row(record: dict[str, Any]) -> list[str]:
    plans, run = record["plans"], record["run"]
    names = ("bytes_up", "bytes_down", "exchanges", "parameters")
    exact = all(plan[name] == run[name] for plan in plans for name in names)
    return [
        record["case"],
        "exact" if exact else "DIFFER",
        _pair([plan["memory"] / 1e6 for plan in plans], run["memory"] / 1e6),
        _pair([_rounds(plan["cpu"]) for plan in plans], run["cpu"]["rounds"]),
        _pair([_after(plan["cpu"]) for plan in plans], run["cpu"]["after"]),
        _pair([sum(plan["wall"].values()) for plan in plans], run["wall"]["all"]),
        _pair([plan["disk"] / 1e6 for plan in plans], run["disk"] / 1e6),
    ]


def _pair(said: Sequence[float], took: float) -> str:
    """Both plans, what the run took, and how far the mean of the plans is from it."""
    mean = sum(said) / len(said)
    return f"{said[0]:.4g}, {said[-1]:.4g} / {took:.4g} ({(mean / took - 1) * 100:+.0f} %)"


def _rounds(seconds: dict[str, float]) -> float:
    return sum(seconds[name] for name in ("training", "head", "evaluation"))


def _after(seconds: dict[str, float]) -> float:
    return sum(value for name, value in seconds.items()) - _rounds(seconds)


if __name__ == "__main__":
    main()
