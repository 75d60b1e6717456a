"""What the command line does, from Python; `import atoll` finds these names when they are used.

import atoll

loaded = atoll.load("classify.yaml", "federation.num_rounds=5")
for report in atoll.federate(loaded):
    print(report.round, report.metric)
run = atoll.open_run(loaded.experiment.output_dir)
print(run.summary["final"])
print(atoll.predict(run, [{"text": "my card has not arrived"}]))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from atoll.config import Loaded, dump
from atoll.config import load as load_file
from atoll.data.tables import Table
from atoll.experiment.setup import prepare
from atoll.experiment.standing import other_run, standing
from atoll.report.write import try_report
from atoll.runs.lines import RoundLine
from atoll.runs.run import federated
from atoll.runs.where import Observer
from atoll.tasks import task_of
from atoll.trained.load_run import TrainedRun, load_run
from atoll.trained.new_rows import new_rows
from atoll.trained.predict import generate
from atoll.trained.readings import readings

__all__ = ["federate", "load", "open_run", "predict"]


def load(path: str | Path, *values: str) -> Loaded:
    """Read an experiment file; values are as on the command line, `federation.num_rounds=5`.

    Raises:
        ConfigError: names file, line and the nearest valid key.
    """
    return load_file(path, overrides=values)


def federate(loaded: Loaded, observer: Observer | None = None) -> Iterator[RoundLine]:
    """Run an experiment, one report a round; baselines, summary and report.html come last.

    Leave the loop when you like: the run directory keeps what was done, and the next call goes on
    after it. A finished run yields nothing.

    Raises:
        AtollError: what `atoll run` would refuse.
    """
    observer = observer or Observer()
    folder = Path(loaded.experiment.output_dir).expanduser()
    found = standing(folder, dump(loaded.experiment))
    if found.state == "other":
        raise other_run(folder, found.changes)
    if found.state != "finished":
        setup = prepare(loaded, note=observer.note, machine=found.machine)
        yield from federated(setup, folder, observer)
        try_report(folder, note=observer.note)


def open_run(path: str | Path, note: Callable[[str], None] = print) -> TrainedRun:
    """A finished run with its trained model.

    Raises:
        RunError: when there is none, or it is not finished.
        ModelError: when its base model has other weights now.
    """
    return load_run(Path(path), note=note)


def predict(
    run: TrainedRun,
    rows: Sequence[Mapping[str, Any]],
    *,
    top: int = 3,
    max_new_tokens: int = 64,
) -> list[dict[str, Any]]:
    """What `atoll predict` says of each row.

    top: how many guesses of a row.   max_new_tokens: length of text that a model writes.

    Raises:
        DataError: for a row that the task cannot read.
    """
    rows = new_rows(run, Table("rows", [dict(row) for row in rows]))
    if task_of(run.setup.experiment).read is None:
        texts = generate(run, rows, max_new_tokens=max_new_tokens)
        return [{"generated": text} for text in texts]
    return readings(run, rows, top=top)
