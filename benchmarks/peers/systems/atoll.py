"""W1 in Atoll, through the experiment file as a user runs it."""

import os
import shutil
import tempfile
from pathlib import Path

import torch

from atoll.config import load
from atoll.experiment.setup import prepare
from atoll.runs.run import run_experiment
from atoll.runs.where import Observer
from benchmarks.peers.watch import mark


def main() -> None:
    torch.set_num_threads(1)
    group = os.environ.get("BENCH_GROUP", "auto")
    loaded = load(os.environ["BENCH_FILE"], overrides=[f"train.group_size={group}"])
    setup = prepare(loaded, note=print)
    assert sum(v.numel() for tree in setup.start.server.values() for v in tree.values()) == 49_764
    print("group", setup.bench.group_size)

    def step(what: str, done: int, total: int) -> None:
        if done == 0 and what.endswith(": train"):
            mark("round")

    folder = Path(tempfile.mkdtemp())
    try:
        losses = []
        observer = Observer(step=step, round=lambda line: losses.append(line.loss))
        run_experiment(setup, folder, observer)
        print("losses", losses)
    finally:
        shutil.rmtree(folder)
    mark("end")


if __name__ == "__main__":
    main()
