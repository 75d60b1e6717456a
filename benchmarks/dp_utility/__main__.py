"""Accuracy against ε, for every mechanism: the recipe `private` (`head`), and LoRA beside its head.

    python -m benchmarks.dp_utility DATA [--settings gaussian,both,...] [--epsilons 1,2,4,8,inf]
    python -m benchmarks.dp_utility --table

DATA is builtin:docstrings, or a folder with train.jsonl.gz and test.jsonl.gz of text and label.
Each run leaves a file of its own under results/, and one whose file is there is skipped, so that a
long table can be made in parts. ε of noise that clients add is against the server.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.common import markdown, write_result
from benchmarks.recipes import run_recipe

HERE = Path(__file__).parent
EPSILONS = "1,2,4,8,inf"
EVERYONE = ["federation.fraction_train=null", "privacy.sampling=everyone"]
B_ALONE = [
    "adapter.method=lora", "adapter.r=4", "adapter.lora_alpha=0.4", "adapter.freeze_a=true",
    "adapter.target_modules=.*\\.5\\..*\\.(query|value)",
]  # fmt: skip
SETTINGS: dict[str, list[str]] = {
    "head": [],
    "head-everyone": EVERYONE,
    "gaussian": B_ALONE,
    "both": [*B_ALONE, "adapter.freeze_a=false", "adapter.lora_alpha=0.02"],
    "adaptive": [*B_ALONE, "privacy.clip={adaptive: true, initial: 6.0}"],
    "everyone": [*B_ALONE, *EVERYONE],
    "blt": [
        *B_ALONE, "privacy.mechanism=blt", "privacy.sampling=turns",
        "federation.fraction_train=0.25",
    ],
    "distributed": [
        *B_ALONE, *EVERYONE, "privacy.mechanism=distributed", "privacy.secure_aggregation=true",
        "privacy.corrupt=0.1", "privacy.dropping=0.1",
    ],
    "local": [*B_ALONE, *EVERYONE, "privacy.mechanism=local"],
}  # fmt: skip


def main() -> None:
    options = _arguments()
    if options.table:
        print(table())
        return
    wanted = itertools.product(
        options.settings.split(","), options.epsilons.split(","), options.seeds.split(",")
    )
    for setting, epsilon, seed in wanted:
        name = f"{_data_name(options.data)}-{options.clients}-{setting}-eps{epsilon}-seed{seed}"
        if list((HERE / "results").glob(f"{name}_*.json")):
            print(f"{name}: done already", flush=True)
            continue
        print(name, flush=True)
        about = {"data": _data_name(options.data), "clients": options.clients, "setting": setting,
                 "epsilon": epsilon, "seed": int(seed)}  # fmt: skip
        more = [*SETTINGS[setting], *_promise(epsilon), f"seed={seed}", *options.set]
        found = one_run(options.data, options.clients, more)
        print(write_result(HERE, name, {**about, **found}), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", default="builtin:docstrings")
    parser.add_argument("--settings", default="gaussian,both")
    parser.add_argument("--epsilons", default=EPSILONS)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--set", action="append", default=[], help="more values of the file")
    parser.add_argument("--table", action="store_true", help="print the table of all results")
    return parser.parse_args()


def _data_name(path: str) -> str:
    return path.removeprefix("builtin:") if path.startswith("builtin:") else Path(path).name


def _promise(epsilon: str) -> list[str]:
    """Of infinity: updates are cut, and nothing is added."""
    if epsilon != "inf":
        return [f"privacy.epsilon={epsilon}"]
    return ["privacy.epsilon=null", "privacy.noise_multiplier=0.0"]


def one_run(data: str, clients: int, more: list[str]) -> dict[str, Any]:
    """One experiment: its final accuracy, what it spent and cost, and its rounds."""
    place = data if data.startswith("builtin:") else str(Path(data).resolve())
    found = run_recipe(
        "private",
        [
            "model.name_or_path=builtin:minilm",
            f"data.path={place}",
            f"data.partition={{name: dirichlet, alpha: 1.0, num_clients: {clients}}}",
            "data.max_length=32",
            f"data.labels={_labels(data)}",
            "data.holdout=0.0",
            "evaluate.baselines=[]",
            "evaluate.every=1000",
            *more,
        ],
    )
    summary = found["summary"]
    return {
        "final": summary["final"],
        "spent": summary["epsilon"],
        "privacy": summary["privacy"],
        "export": summary["export"],
        "trainable": summary.get("trainable_parameters"),
        **{key: found[key] for key in ("seconds", "cpu_seconds", "rounds")},
    }


def _labels(data: str) -> str:
    """Those of the training file; a data set that is built in says them itself."""
    if data.startswith("builtin:"):
        return "null"
    with gzip.open(Path(data) / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
        return json.dumps(sorted({json.loads(line)["label"] for line in lines}))


def table() -> str:
    """A row for each setting, a column for each ε."""
    runs = [json.loads(path.read_text()) for path in sorted((HERE / "results").glob("*.json"))]
    found: dict[tuple[str, int, str], dict[str, list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for run in runs:
        found[run["data"], run["clients"], run["setting"]][run["epsilon"]].append(run["final"])
    epsilons = sorted({run["epsilon"] for run in runs}, key=float)
    header = ["data", "clients", "setting", *(f"ε = {each}" for each in epsilons)]
    rows = [
        [*key, *(f"{statistics.mean(met[e]):.3f}" if e in met else "" for e in epsilons)]
        for key, met in sorted(found.items())
    ]
    return markdown(header, rows)


if __name__ == "__main__":
    main()
