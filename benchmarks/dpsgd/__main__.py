"""What hiding rows costs: a stack with and without it, and peft's modules with and without opacus.

    OMP_NUM_THREADS=1 python -m benchmarks.dpsgd [--quick]

Each client takes the same number of steps in all arms. The plain ones have `rows` rows in each; the
private ones draw as many on average, and the secret is the first one under which they drew as many
in all. A batch of more than `rows` rows runs in pieces, but where memory for twice as many is
granted (`roomy`).
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from atoll.core import Channel, Context, Request
from atoll.local.per_example import PerExample, exchange_key, poisson_steps
from atoll.local.train import LocalRule, Trained, train
from atoll.models.base import Base
from atoll.tree import Tree
from benchmarks.common import Sample, interleave, markdown, write_result
from benchmarks.dpsgd.peer import Noise, Peer, peer
from benchmarks.models import llama_135m, minilm, tiny_bert
from benchmarks.overhead.workload import ALPHA, RANK, RATE, Case, Workload, build

MODELS: dict[str, Callable[[], Base]] = {
    "llama-small": lambda: llama_135m(small=True),
    "tiny-bert": tiny_bert,
    "minilm": minilm,
}
CLIP, MULTIPLIER = 0.5, 1.0
TARGET = 1.5
TOLERANCE = 1e-4


def main() -> None:
    options = _arguments()
    torch.set_num_threads(1)
    found = []
    for name in options.models:
        work = build(MODELS[name]())
        for clients in options.clients:
            case = Case(work, clients, options.rows, options.steps)
            found.append({"model": name, **_measure(case, options.repeats)})
            print(_line(found[-1]), flush=True)
    path = write_result(Path(__file__).parent, "dpsgd", {"settings": vars(options), "cases": found})
    print(f"\n{table(found)}\n\nwritten to {path}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--models", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--clients", nargs="*", type=int, default=[1, 8])
    parser.add_argument("--rows", type=int, default=8, help="rows of a client in a step")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int)
    options = parser.parse_args()
    options.repeats = options.repeats or (3 if options.quick else 7)
    return options


def _measure(case: Case, repeats: int) -> dict[str, Any]:
    drawn = _first_even(case)
    differences = _check(case, drawn)
    ways = {
        "stack": lambda: _stack(case, None),
        "private": lambda: _stack(case, _rule(case, drawn, MULTIPLIER)),
        "roomy": lambda: _stack(case, _rule(case, drawn, MULTIPLIER), room=2),
        "peft": _peer(case, None, drawn),
        "opacus": _peer(case, MULTIPLIER, drawn),
    }
    samples = {
        name: sample.per(case.clients) for name, sample in interleave(ways, repeats=repeats).items()
    }
    return {
        "clients": case.clients,
        "rows": case.rows,
        "steps": case.steps,
        "parameters": sum(v.numel() for tree in case.work.state.values() for v in tree.values()),
        "differences": differences,
        "seconds_per_client_round": {name: asdict(sample) for name, sample in samples.items()},
        "ratios": _ratios(samples),
    }


def _ratios(samples: dict[str, Sample]) -> dict[str, float]:
    cost = {name: sample.cpu for name, sample in samples.items()}
    return {
        "private/stack": cost["private"] / cost["stack"],
        "roomy/stack": cost["roomy"] / cost["stack"],
        "opacus/peft": cost["opacus"] / cost["peft"],
        "private/opacus": cost["private"] / cost["opacus"],
    }


def _rule(case: Case, key: bytes, multiplier: float) -> LocalRule:
    return LocalRule(private=PerExample(CLIP, multiplier, lambda context: key, 1 / case.steps))


def _requests(case: Case) -> list[Request]:
    payload = {part: Channel(tree) for part, tree in case.work.state.items()}
    contexts = [
        Context(0, "dpsgd", 1, 1, case.roster, case.clients, client) for client in case.roster
    ]
    return [Request(context, payload) for context in contexts]


def _first_even(case: Case) -> bytes:
    """The first secret under which all steps have rows, and as many in all as without it."""
    whole = case.clients * case.rows * case.steps
    for number in itertools.count():
        key = number.to_bytes(32, "big")
        sizes = [len(step) for client in range(case.clients) for step in _steps(case, key, client)]
        if sum(sizes) == whole and min(sizes):
            return key
    raise AssertionError("an endless count ended")


def _steps(case: Case, key: bytes, client: int) -> list[list[int]]:
    """The rows of each of a client's steps under a secret."""
    private = _rule(case, key, 0.0).private
    assert private is not None, "the rule hides rows"
    secret = exchange_key(private, _requests(case)[client])
    rows = case.rows * case.steps
    return poisson_steps(secret, 1 / case.steps, steps=case.steps, rows=rows)


def _stack(case: Case, rule: LocalRule | None, *, room: int = 1) -> list[Trained]:
    """All clients in one stack, in memory for so many times their rows."""
    settings = case.bench.settings.model_copy(
        update={"per_device_train_batch_size": room * case.rows}
    )
    bench = replace(case.bench, group_size=case.clients, settings=settings)
    results = list(train(bench, _requests(case), rule))
    assert all(isinstance(one, Trained) for one in results), results
    return [one for one in results if isinstance(one, Trained)]


def _peer(case: Case, multiplier: float | None, key: bytes) -> Callable[[], list[Tree]]:
    """One client after another on peft's modules; opacus where there is a noise multiplier."""
    noise = None if multiplier is None else Noise(CLIP, multiplier, case.rows)
    made, bench = _made(case.work, noise), case.bench
    start = {name: value for tree in case.work.state.values() for name, value in tree.items()}
    rounds = []
    for number, client in enumerate(case.roster):
        batch = bench.objective.collate(bench.examples(client, "train"))
        whole = torch.arange(case.rows * case.steps).split(case.rows)
        drawn = [torch.tensor(rows) for rows in _steps(case, key, number)]
        rounds.append((batch.inputs, batch.target, whole if noise is None else drawn))
    return lambda: [made.trained(start, *one, RATE) for one in rounds]


def _made(work: Workload, noise: Noise | None) -> Peer:
    sites = [site.module for site in work.bench.model.sites if site.module != work.base.head]
    targets = [name.removeprefix(work.base.prefix) for name in sites]
    return peer(work.base, targets, noise, r=RANK, alpha=ALPHA)


def _check(case: Case, key: bytes) -> dict[str, float]:
    """That a private stack and opacus take the same steps where there is no noise."""
    theirs = _peer(case, 0.0, key)()
    ours = {one.request.context.client: one for one in _stack(case, _rule(case, key, 0.0))}
    worst, moved = 0.0, 0.0
    for client, values in zip(case.roster, theirs, strict=True):
        for name, value in values.items():
            worst = max(worst, float((ours[client].end[name] - value).abs().max()))
            moved = max(moved, float((ours[client].start[name] - value).abs().max()))
    assert moved > 10 * TOLERANCE, "clients did not move"
    assert worst <= TOLERANCE, f"the arms do other work: {worst}"
    return {"values": worst, "moved": moved}


def _line(record: dict[str, Any]) -> str:
    ratios = "  ".join(f"{name} {value:.2f}" for name, value in record["ratios"].items())
    return f"{record['model']:>12} K={record['clients']}  {ratios}"


def table(records: list[dict[str, Any]]) -> str:
    """The README's table: milliseconds of a client's round, and ratios."""
    header = ["model", "K", "values", "stack ms", "private ms", "roomy ms", "peft ms", "opacus ms"]
    header += [
        f"private / stack (≤ {TARGET})",
        "roomy / stack",
        "opacus / peft",
        "private / opacus",
    ]
    lines = []
    for record in records:
        cost = {n: s["cpu"] * 1e3 for n, s in record["seconds_per_client_round"].items()}
        row = [record["model"], record["clients"], f"{record['parameters']:,}"]
        row += [f"{cost[name]:.1f}" for name in ("stack", "private", "roomy", "peft", "opacus")]
        lines.append([*row, *(f"{ratio:.2f}" for ratio in record["ratios"].values())])
    return markdown(header, lines)


if __name__ == "__main__":
    main()
