"""Accuracy against rounds, exchanges and bytes, for every algorithm and head.

    python -m benchmarks.accuracy DATA [--settings recipe,lda,...] [--alphas 0.1,1.0] [--seeds 0]
    python -m benchmarks.accuracy --table

DATA is a folder with train.jsonl.gz and test.jsonl.gz of text and label, or builtin:docstrings.
Each run goes through `atoll.experiment`, as `atoll run` does, and leaves a file of its own under
results/. A run whose file is there is skipped, so that a long table can be made in parts.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

from benchmarks.accuracy.tables import tables
from benchmarks.common import write_result
from benchmarks.recipes import run_recipe

HERE = Path(__file__).parent
FROZEN = ["adapter.method=none", "federation.num_rounds=0", "federation.algorithm=fedavg"]
PLAIN = ["adapter.head_features=null", *FROZEN]
SLOW = ["adapter.head=train", "adapter.head_features=null"]
# A head from zero has further to go than LoRA: ten times the recipe's rate.
TRAINED = [*SLOW, "train.head_learning_rate=0.02"]

SETTINGS: dict[str, list[str]] = {
    "recipe": [],
    "recipe-solved-head": ["adapter.local_head=solved"],
    "ridge": [*PLAIN, "adapter.head=ridge"],
    "ridge-random-2048": [*FROZEN, "adapter.head=ridge", "adapter.head_features=2048"],
    "ridge-random-4096": [*FROZEN, "adapter.head=ridge", "adapter.head_features=4096"],
    "lda": [*PLAIN, "adapter.head=lda"],
    "means": [*PLAIN, "adapter.head=means"],
    "logistic-5": [*PLAIN, "adapter.head=logistic", "adapter.head_exchanges=4"],
    "logistic-30": [*PLAIN, "adapter.head=logistic", "adapter.head_exchanges=29"],
    "lora-lda": ["adapter.head=lda", "adapter.head_features=null"],
    "fedavg": [*TRAINED, "federation.algorithm=fedavg"],
    "fedavg-slow-head": [*SLOW, "federation.algorithm=fedavg"],
    "fedprox": [*TRAINED, "federation.algorithm={name: fedprox, mu: 0.01}"],
    "scaffold": [*TRAINED, "federation.algorithm=scaffold"],
    "fednova": [*TRAINED, "federation.algorithm=fednova"],
    "fedadam": [
        *TRAINED,
        "federation.algorithm={name: fedopt, optimizer: adam, learning_rate: 0.01}",
    ],
    "fedyogi": [
        *TRAINED,
        "federation.algorithm={name: fedopt, optimizer: yogi, learning_rate: 0.01}",
    ],
    "fedadagrad": [
        *TRAINED,
        "federation.algorithm={name: fedopt, optimizer: adagrad, learning_rate: 0.03}",
    ],
}


def main() -> None:
    options = _arguments()
    if options.table:
        print(tables(HERE / "results"))
        return
    wanted = itertools.product(
        options.settings.split(","), options.alphas.split(","), options.seeds.split(",")
    )
    for setting, alpha, seed in wanted:
        name = f"{_data_name(options.data)}-{setting}-alpha{alpha}-seed{seed}"
        more = [*SETTINGS[setting], f"seed={seed}"]
        if options.rounds is not None and "federation.num_rounds=0" not in more:
            more.append(f"federation.num_rounds={options.rounds}")
            name += f"-{options.rounds}rounds"
        if list((HERE / "results").glob(f"{name}_*.json")):
            print(f"{name}: done already", flush=True)
            continue
        print(name, flush=True)
        result = one_run(options.data, more, alpha=float(alpha))
        about = {"data": _data_name(options.data), "setting": setting, "alpha": float(alpha),
                 "seed": int(seed)}  # fmt: skip
        print(write_result(HERE, name, {**about, **result}), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", default="builtin:docstrings")
    parser.add_argument("--settings", default="recipe,ridge,ridge-random-2048,lda,means")
    parser.add_argument("--alphas", default="0.1,1.0")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--table", action="store_true", help="print the tables of all results")
    return parser.parse_args()


def _data_name(path: str) -> str:
    return path.removeprefix("builtin:") if path.startswith("builtin:") else Path(path).name


def one_run(data: str, more: list[str], *, alpha: float) -> dict[str, Any]:
    """One experiment: its final accuracy, what it cost, and its rounds."""
    place = data if data.startswith("builtin:") else str(Path(data).resolve())
    found = run_recipe(
        "classify",
        [
            "model.name_or_path=builtin:minilm",
            f"data.path={place}",
            f"data.partition={{name: dirichlet, alpha: {alpha}, num_clients: 20}}",
            "data.holdout=0.0",
            "evaluate.baselines=[]",
            *more,
        ],
    )
    return {
        **{key: found["summary"][key] for key in ("final", "exchanges", "bytes_up", "bytes_down")},
        **{key: found[key] for key in ("seconds", "cpu_seconds", "rounds")},
    }


if __name__ == "__main__":
    main()
