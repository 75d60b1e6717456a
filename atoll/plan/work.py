"""What a run computes, counted before it runs: passes through the model, and exchanges."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from atoll.core import Context
from atoll.experiment.setup import Setup
from atoll.local.bench import Bench
from atoll.plan.load import VISITS, Load, forward_load, training_load
from atoll.plan.rows import COMMON, Rows
from atoll.runtimes.inprocess import AT_ONCE

__all__ = ["Answers", "Work", "head_rows", "measured", "most_measured", "training_loads"]


@dataclass(frozen=True)
class Answers:
    """How often an algorithm's exchange is made, by how many clients, over how many rows."""

    exchanges: int = 0
    clients: int = 0
    rows: int = 0

    def __add__(self, other: Answers) -> Answers:
        """Both."""
        return Answers(
            self.exchanges + other.exchanges, self.clients + other.clients, self.rows + other.rows
        )


@dataclass(frozen=True)
class Work:
    """Passes with a backward one, passes without, exchanges by algorithm, and rows that are new to
    the model's frozen blocks, where their outputs are kept."""

    training: Load = field(default_factory=Load)
    forward: Load = field(default_factory=Load)
    answers: Mapping[str, Answers] = field(default_factory=dict)
    fresh: Load = field(default_factory=Load)

    def __add__(self, other: Work) -> Work:
        """Both."""
        names = self.answers.keys() | other.answers.keys()
        return Work(
            self.training + other.training,
            self.forward + other.forward,
            {n: self.answers.get(n, Answers()) + other.answers.get(n, Answers()) for n in names},
            self.fresh + other.fresh,
        )


def measured(setup: Setup, rows: Rows) -> Work:
    """One model on every client's own held-out rows, and on the common ones."""
    size = setup.bench.settings.per_device_eval_batch_size
    keys = [*((client, "test") for client in setup.data.clients), COMMON]
    loads = [forward_load(rows.lengths(*key), size) for key in keys]
    return Work(forward=sum(loads, Load()), fresh=sum((rows.met.run(*key) for key in keys), Load()))


def most_measured(setup: Setup) -> int:
    """The most rows that are run through the model without training, in one batch."""
    counts, bench = setup.data.counts.values(), setup.bench
    sets = [len(setup.common_test() or []), *(one.test for one in counts)]
    solved = any(one.kind == "exchange" for one in setup.program.algorithms.values())
    if solved or bench.prefix is not None:
        sets += [one.train for one in counts]
    return min(bench.settings.per_device_eval_batch_size, max(1, *sets))


def head_rows(setup: Setup, rows: Rows, clients: Sequence[str], representation: str) -> Work:
    """The training rows of clients as a head reads them, as far as they are not held still."""
    size = setup.bench.settings.per_device_eval_batch_size
    missed = [client for client in clients if rows.features.missed(client, representation)]
    loads = [forward_load(rows.lengths(client, "train"), size) for client in missed]
    fresh = [rows.met.run(client, "train") for client in missed]
    return Work(forward=sum(loads, Load()), fresh=sum(fresh, Load()))


def training_loads(
    bench: Bench, jobs: Sequence[Sequence[Context]], rows: Rows, *, epochs: float | None
) -> list[Load]:
    """Of clients that are asked together; where there are too many, of evenly chosen ones."""
    sizes = [sum(len(rows.lengths(one.client, "train")) for one in job) for job in jobs]
    each = float(bench.settings.num_train_epochs) if epochs is None else epochs
    stride = max(1, math.ceil(sum(sizes) * each / VISITS))
    found: list[Load] = []
    known, of = Load(), 1
    for number, job in enumerate(jobs):
        if number % stride == 0:
            known, of = _asked(bench, job, rows, epochs=epochs), max(sizes[number], 1)
        found.append(known if sizes[number] == of else known.times(sizes[number] / of))
    return found


def _asked(bench: Bench, job: Sequence[Context], rows: Rows, *, epochs: float | None) -> Load:
    found = Load()
    for start in range(0, len(job), AT_ONCE):
        few = job[start : start + AT_ONCE]
        own = [rows.lengths(one.client, "train") for one in few]
        found += training_load(bench, few, own, epochs=epochs)
    return found
