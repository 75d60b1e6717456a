"""Accuracy against rounds, exchanges and bytes, for every algorithm and head.

    python -m benchmarks.accuracy DATA [--settings recipe,lda,...] [--alphas 0.1,1.0] [--seeds 0]

DATA is a folder with train.jsonl.gz and test.jsonl.gz of text and label. Each run goes through
`atoll.experiment`, as `atoll run` does; its rounds are kept in the result.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atoll.config import load
from atoll.experiment.run import Observer, run_experiment
from atoll.experiment.setup import prepare
from benchmarks.common import write_result

FROZEN = ["adapter.method=none", "federation.num_rounds=0", "federation.algorithm=fedavg"]
TRAINED = ["adapter.head=train", "adapter.head_features=null", "train.restricted=false"]

SETTINGS: dict[str, list[str]] = {
    "recipe": [],
    "ridge": [*FROZEN, "adapter.head=ridge", "adapter.head_features=null"],
    "ridge-random-2048": [*FROZEN, "adapter.head=ridge", "adapter.head_features=2048"],
    "ridge-random-4096": [*FROZEN, "adapter.head=ridge", "adapter.head_features=4096"],
    "lda": [*FROZEN, "adapter.head=lda", "adapter.head_features=null"],
    "means": [*FROZEN, "adapter.head=means", "adapter.head_features=null"],
    "logistic-30": [*FROZEN, "adapter.head=logistic", "adapter.head_features=null",
                    "adapter.head_exchanges=29"],
    "lora-lda": ["adapter.head=lda", "adapter.head_features=null", "adapter.refit_every=5"],
    "fedavg": [*TRAINED, "federation.algorithm=fedavg"],
    "fedprox": [*TRAINED, "federation.algorithm={name: fedprox, mu: 0.01}"],
    "scaffold": [*TRAINED, "federation.algorithm=scaffold"],
    "fednova": [*TRAINED, "federation.algorithm=fednova"],
    "fedadam": [*TRAINED, "federation.algorithm={name: fedopt, optimizer: adam}"],
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--settings", default="recipe,ridge,ridge-random-2048,lda,means")
    parser.add_argument("--alphas", default="0.1,1.0")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--rounds", type=int, default=None)
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    for setting in arguments.settings.split(","):
        for alpha in map(float, arguments.alphas.split(",")):
            for seed in map(int, arguments.seeds.split(",")):
                more = [*SETTINGS[setting], f"seed={seed}"]
                if arguments.rounds is not None and "federation.num_rounds=0" not in more:
                    more.append(f"federation.num_rounds={arguments.rounds}")
                result = one_run(arguments.data, more, alpha=alpha, say=print)
                found.append({"setting": setting, "alpha": alpha, "seed": seed, **result})
                print(json.dumps({k: v for k, v in found[-1].items() if k != "rounds"}), flush=True)
                write_result(
                    Path(__file__).parent / "results", f"accuracy-{arguments.data.name}",
                    {"data": arguments.data.name, "runs": found},
                )  # fmt: skip


def one_run(
    data: Path, more: list[str], *, alpha: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """One experiment: its final accuracy, what it cost, and its rounds."""
    start, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "classify.yaml"
        recipe.write_text(_recipe(), encoding="utf-8")
        loaded = load(
            recipe,
            overrides=[
                "model.name_or_path=builtin:minilm",
                f"data.path={data.resolve()}",
                f"data.partition={{name: dirichlet, alpha: {alpha}, num_clients: 20}}",
                "data.holdout=0.0",
                "evaluate.baselines=[]",
                f"output_dir={folder}/run",
                *more,
            ],
        )
        setup = prepare(loaded, note=say)
        summary = run_experiment(
            setup, Path(folder) / "run", Observer(note=say, round=lambda line: say(str(line)))
        )
        lines = (Path(folder) / "run" / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
    setup.bench.model.close()
    return {
        "final": summary["final"],
        "own": summary["own"]["federated"],
        "exchanges": summary["exchanges"],
        "bytes_up": summary["bytes_up"],
        "bytes_down": summary["bytes_down"],
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "rounds": [json.loads(line) for line in lines],
    }


def _recipe() -> str:
    from importlib.resources import files

    return (files("atoll") / "recipes" / "classify.yaml").read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
