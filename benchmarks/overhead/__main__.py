"""What does federating cost? A bare loop, Atoll one by one, Atoll stacked, and pooled training."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from atoll.models.base import Base
from benchmarks.common import Sample, interleave, markdown, write_result
from benchmarks.models import llama_135m, minilm, tiny_bert
from benchmarks.overhead.workload import Case, Workload, arms, build

MODELS: dict[str, Callable[[], Base]] = {
    "tiny": tiny_bert,
    "minilm": minilm,
    "llama-135m": llama_135m,
    "llama-small": lambda: llama_135m(small=True),
}
TARGETS = {
    "tiny": {1: 0.45, 4: 0.7, 8: 0.85},
    "minilm": {1: 0.75, 4: 0.9, 8: 0.95},
}
"""What stacked may cost beside the bare loop, by rows a client and step."""
ROWS = (1, 4, 8)


def main() -> None:
    options = _arguments()
    torch.set_num_threads(options.threads)
    found: list[dict[str, Any]] = []
    started = time.perf_counter()
    for name in options.models or _models(options.device):
        work = build(MODELS[name](), device=options.device)
        for rows in options.rows:
            for clients in options.clients or _clients(name, options):
                record = _measure(work, name, rows, clients, options)
                found.append(record)
                print(_line(record), flush=True)
    content = {"settings": vars(options), "seconds": time.perf_counter() - started, "cases": found}
    kind = "overhead-quick" if options.quick else "overhead"
    path = write_result(Path(__file__).parent, kind, content, device=options.device)
    print(f"\n{table(found, options.device)}\n\nwritten to {path}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer clients and repetitions")
    parser.add_argument("--device", default="cpu", help="cpu (one thread), or cuda")
    parser.add_argument("--models", nargs="*", choices=list(MODELS))
    parser.add_argument("--rows", nargs="*", type=int, default=ROWS)
    parser.add_argument("--clients", nargs="*", type=int)
    parser.add_argument("--steps", type=int, default=4, help="optimiser steps of a client-round")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.repeats = options.repeats or (3 if options.quick else 5)
    return options


def _models(device: str) -> Sequence[str]:
    return ("tiny", "minilm") if device == "cpu" else ("tiny", "minilm", "llama-135m")


def _clients(model: str, options: argparse.Namespace) -> Sequence[int]:
    if options.device != "cpu":
        return (1, 8, 64, 256) if options.quick else (1, 2, 4, 8, 16, 32, 64, 128, 256)
    if options.quick and model != "tiny":
        return (1, 4, 16)
    return (1, 8, 32) if options.quick else (1, 2, 4, 8, 16, 32)


def _measure(
    work: Workload, model: str, rows: int, clients: int, options: argparse.Namespace
) -> dict[str, Any]:
    case = Case(work, clients, rows, options.steps)
    differences = case.check()
    ways = arms(case)
    cuda = options.device != "cpu"
    samples = interleave(
        {name: way for name, (way, _) in ways.items()},
        repeats=options.repeats,
        sync=torch.cuda.synchronize if cuda else lambda: None,
    )
    each = {name: sample.per(ways[name][1]) for name, sample in samples.items()}
    return {
        "model": model,
        "rows": rows,
        "clients": clients,
        "group_auto": case.group("auto"),
        "differences": differences,
        "seconds_per_client_round": {name: asdict(sample) for name, sample in each.items()},
        "ratios": _ratios(each, wall=cuda),
    }


def _ratios(each: dict[str, Sample], *, wall: bool) -> dict[str, float]:
    """CPU seconds where the CPU does the work, else wall seconds."""
    cost = {name: sample.wall if wall else sample.cpu for name, sample in each.items()}
    return {
        "one/bare": cost["one"] / cost["bare"],
        "stacked/bare": cost["stacked"] / cost["bare"],
        "auto/bare": cost["auto"] / cost["bare"],
        "stacked/central": cost["stacked"] / cost["central"],
        "auto/central": cost["auto"] / cost["central"],
        "fused/bare": cost["fused"] / cost["bare"],
    }


def _line(record: dict[str, Any]) -> str:
    ratios = "  ".join(f"{name} {value:.2f}" for name, value in record["ratios"].items())
    bare = record["seconds_per_client_round"]["bare"]["cpu"]
    case = f"{record['model']:>10} {record['rows']} rows K={record['clients']:<3}"
    return f"{case} bare {bare * 1e3:6.1f} ms  {ratios}"


def table(records: Sequence[dict[str, Any]], device: str) -> str:
    """The README's table: milliseconds, and ratios beside their targets."""
    which = "cpu" if device == "cpu" else "wall"
    header = [
        *("model", "rows", "K", "(a) bare ms", "(b) one ms", "(c) stacked ms", "(c) auto ms"),
        *("(d) central ms", "b/a ≤ 1.05", "c/a: K, auto", "target", "c/d ≤ 1.1: K, auto"),
    ]
    lines = []
    for record in records:
        cost = {n: s[which] * 1e3 for n, s in record["seconds_per_client_round"].items()}
        ratio = record["ratios"]
        target = TARGETS.get(record["model"], {}).get(record["rows"], "")
        lines.append([
            record["model"], record["rows"], record["clients"],
            *(f"{cost[name]:.1f}" for name in ("bare", "one", "stacked")),
            f"{cost['auto']:.1f} (groups of {record['group_auto']})", f"{cost['central']:.1f}",
            f"{ratio['one/bare']:.2f}",
            f"{ratio['stacked/bare']:.2f}, {ratio['auto/bare']:.2f}", target,
            f"{ratio['stacked/central']:.2f}, {ratio['auto/central']:.2f}",
        ])  # fmt: skip
    return markdown(header, lines)


if __name__ == "__main__":
    main()
