"""From an experiment file to everything that a run needs, before any training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from atoll.adapters.build import Built, build_adapter
from atoll.config import Experiment, Loaded
from atoll.config.tasks import TASKS
from atoll.core import Position, Program
from atoll.data import FederatedData
from atoll.experiment.bench import begun, bench_of, device_of, first_state, placed_on
from atoll.experiment.checks import check_cohort, check_program, check_revision
from atoll.experiment.examples import cached_examples, common_examples
from atoll.experiment.hiding import hiding_of
from atoll.experiment.lengths import told_lengths
from atoll.experiment.placed import placed_errors
from atoll.experiment.predicting import predicting, probe_batch, told_unmeasured
from atoll.experiment.prefix import prefix_of
from atoll.experiment.program import Heads, build_program, head_methods
from atoll.experiment.rows import load_data, scaled
from atoll.experiment.standing import Machine
from atoll.experiment.started import started_from
from atoll.experiment.trackers import check_trackers
from atoll.local.bench import Bench
from atoll.local.features import feature_cache
from atoll.local.group import group_size
from atoll.local.statistics import Labelled
from atoll.models.base import Base
from atoll.models.objective import Example
from atoll.protection import Parties, Protection, RowProtection, Spread, check_usual
from atoll.tasks import task_of
from atoll.words import counted, listed

__all__ = ["Setup", "prepare"]


@dataclass(frozen=True)
class Setup:
    """A run that could start: data, model, parts, and the state before the first round.

    labelled: a client's head features, kept as long as memory allows; None without a head.
    begin: that state. It is as large as the model, and a server without rows makes it anew.
    common_test: the common test set, encoded; None where every client has only its own.
    forked_from: the run, and its round, whose checkpoint this one starts from.
    protection: what hides clients; None: nothing does.   rows: what hides single rows.
    """

    loaded: Loaded
    data: FederatedData
    base: Base
    built: Built
    bench: Bench
    labelled: Labelled | None
    program: Program
    begin: Callable[[], Position]
    common_test: Callable[[], Sequence[Example] | None]
    forked_from: Mapping[str, Any] | None = None
    protection: Protection | Spread | None = None
    rows: RowProtection | None = None

    @property
    def experiment(self) -> Experiment:
        """The resolved experiment file."""
        return self.loaded.experiment

    @property
    def start(self) -> Position:
        """Where the run stands before the first round."""
        return self.begin()

    @property
    def clients_per_round(self) -> int:
        """The size of a cohort."""
        return self.experiment.federation.cohort(len(self.data.clients))

    def all_held_out(self) -> list[Example]:
        """All clients' held-out rows together."""
        return [x for client in self.data.clients for x in self.bench.examples(client, "test")]


def prepare(
    loaded: Loaded,
    *,
    note: Callable[[str], None],
    data: FederatedData | None = None,
    machine: Machine | None = None,
    parties: Parties | None = None,
    population: int | None = None,
) -> Setup:
    """Load and check everything; `note` hears what a user should know.

    data: stands in for what the file names.
    machine: what a run that goes on was started with; torch gets as many threads again.
    parties: who takes part in secure sums; None: all of them, in this process.
    population: clients that there are in all; None: those that are here.

    Raises:
        AtollError: for anything in the file, data or model that would not train.
    """
    if machine is not None:
        # Sums of another number of threads round in another order.
        torch.set_num_threads(machine.threads)
    for text in loaded.notes:
        note(text)
    data = scaled(loaded.experiment, load_data(loaded) if data is None else data)
    if data.skipped:
        named = [f"{name} ({data.reasons.get(name, 'no rows')})" for name in data.skipped]
        note(f"{counted(len(named), 'client')} without rows left out: {listed(named)}")
    if data.test() is None and not any(count.test for count in data.counts.values()):
        note("no held-out rows: nothing is measured")
    with placed_errors(loaded):
        if data.whole:
            check_cohort(loaded, data)
        elif parties is not None:
            check_usual(loaded, population or parties.population)
        check_revision(loaded)
        check_trackers(loaded)
        return _prepared(loaded, data, note, machine, (parties, population))


def _prepared(
    loaded: Loaded, data: FederatedData, note: Callable[[str], None], machine: Machine | None,
    others: tuple[Parties | None, int | None],
) -> Setup:  # fmt: skip
    experiment = loaded.experiment
    task = task_of(experiment)
    base = task.base(experiment, data)
    objective = task.objective(experiment, base, data)
    probe = probe_batch(objective, data)
    built = build_adapter(base, experiment.adapter, probe)
    _tell(built, note)
    bench = bench_of(experiment, base, built, objective, cached_examples(objective, data))
    bench = _placed(bench, base, built, data.clients, machine)
    bench = replace(bench, prefix=prefix_of(experiment, bench, data, probe))
    if objective.drops_rows and not data.made_up:
        data = predicting(data, bench.examples, note=note)
        if data.whole:
            check_cohort(loaded, data)
    if built.alone is not None and experiment.adapter.method != "none":
        note(f"clients train one after another: {built.alone}")
    hiding = hiding_of(loaded, data, *others)
    bench = hiding.trained(bench)
    labelled = feature_cache(bench) if TASKS[experiment.model.task].solved else None
    heads = head_methods(bench, experiment.adapter, labelled) if labelled else Heads()
    program = build_program(loaded, bench, heads, hiding.clients, measured=hiding.measured)
    check_program(loaded, program, data, note=note)
    program, hiding = hiding.sealed(loaded, program, first_state(bench, experiment), note)

    def begin(note: Callable[[str], None]) -> Position:
        state = first_state(bench, experiment)
        state = started_from(experiment, state, base, built, data.labels, note=note)
        return Position(begun(program, state))

    common, start = common_examples(objective, data), begin(note)
    begins = partial(begin, lambda text: None) if data.made_up else lambda: start
    if machine is None and not data.made_up:  # else they were looked at when it began
        _told(experiment, data, bench, common, note)
    return Setup(
        loaded, data, base, built, bench, labelled, program, begins, common,
        protection=hiding.clients, rows=hiding.rows,
    )  # fmt: skip


def _told(
    experiment: Experiment, data: FederatedData, bench: Bench,
    common: Callable[[], Sequence[Example] | None], note: Callable[[str], None],
) -> None:  # fmt: skip
    told_lengths(experiment, data, bench, common, note=note)
    if bench.objective.drops_rows:
        told_unmeasured(data, bench.examples, common, note=note)


def _placed(
    bench: Bench, base: Base, built: Built, clients: Sequence[str], machine: Machine | None
) -> Bench:
    """On its device, with as many clients at once as it holds; as before where a run goes on."""
    settings = bench.settings
    bench = placed_on(bench, device_of(settings.device if machine is None else machine.device))
    # Another one where PEFT adapts a copy, which shares parameters and not buffers.
    base.model.to(bench.device)
    if built.alone is not None:
        return bench
    size = settings.group_size if machine is None else machine.group_size
    size = group_size(bench, clients=clients) if size == "auto" else size
    return replace(bench, group_size=size)


def _tell(built: Built, note: Callable[[str], None]) -> None:
    if built.dropped:
        note(f"{counted(len(built.dropped), 'module')} without a gradient under this task and "
             f"pooling left out: {', '.join(built.dropped)}")  # fmt: skip
    for remark in built.remarks:
        note(f"PEFT: {remark}")
