"""From an experiment file to everything that a run needs, before any training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from atoll.adapters.build import Built, build_adapter
from atoll.config import Experiment, Loaded, resolve
from atoll.config.tasks import TASKS
from atoll.core import Position, Program, State
from atoll.data import FederatedData, load
from atoll.errors import ConfigError
from atoll.experiment.checks import check_cohort, check_revision
from atoll.experiment.examples import cached_examples, common_examples
from atoll.experiment.placed import placed_errors
from atoll.experiment.predicting import predicting, probe_batch
from atoll.experiment.program import Heads, build_program, head_methods
from atoll.experiment.tasks import task_of
from atoll.experiment.words import counted, listed
from atoll.local.bench import Bench
from atoll.local.features import feature_cache
from atoll.local.group import group_size
from atoll.local.statistics import Labelled
from atoll.models.base import Base
from atoll.models.objective import Example, Objective

__all__ = ["Setup", "load_data", "prepare"]


@dataclass(frozen=True)
class Setup:
    """A run that could start: data, model, parts, and the state before the first round.

    labelled: a client's head features, kept as long as memory allows; None without a head.
    common_test: the common test set, encoded; None where every client has only its own.
    """

    loaded: Loaded
    data: FederatedData
    base: Base
    built: Built
    bench: Bench
    labelled: Labelled | None
    program: Program
    start: Position
    common_test: Callable[[], Sequence[Example] | None]

    @property
    def experiment(self) -> Experiment:
        """The resolved experiment file."""
        return self.loaded.experiment

    @property
    def clients_per_round(self) -> int:
        """The size of a cohort."""
        return self.experiment.federation.cohort(len(self.data.clients))

    def all_held_out(self) -> list[Example]:
        """All clients' held-out rows together."""
        return [x for client in self.data.clients for x in self.bench.examples(client, "test")]


def prepare(
    loaded: Loaded, *, note: Callable[[str], None], data: FederatedData | None = None
) -> Setup:
    """Load and check everything; `note` hears what a user should know.

    data: stands in for what the file names.

    Raises:
        AtollError: for anything in the file, data or model that would not train.
    """
    for text in loaded.notes:
        note(text)
    data = load_data(loaded) if data is None else data
    if data.skipped:
        named = [f"{name} ({data.reasons.get(name, 'no rows')})" for name in data.skipped]
        note(f"{counted(len(named), 'client')} without rows left out: {listed(named)}")
    if data.test() is None and not any(count.test for count in data.counts.values()):
        note("no held-out rows: nothing is measured")
    with placed_errors(loaded):
        return _prepared(loaded, data, note)


def _prepared(loaded: Loaded, data: FederatedData, note: Callable[[str], None]) -> Setup:
    experiment = loaded.experiment
    check_cohort(loaded, data)
    check_revision(loaded)
    task = task_of(experiment)
    base = task.base(experiment, data)
    objective = task.objective(experiment, base, data)
    built = build_adapter(base, experiment.adapter, probe_batch(objective, data))
    if built.dropped:
        note(f"{counted(len(built.dropped), 'module')} without a gradient under this task and "
             f"pooling left out: {', '.join(built.dropped)}")  # fmt: skip
    bench = _bench(experiment, base, built, objective, data)
    if objective.drops_rows:
        data = predicting(data, bench.examples, note=note)
        check_cohort(loaded, data)
    if built.alone is not None and experiment.adapter.method != "none":
        note(f"clients train one after another: {built.alone}")
    labelled = feature_cache(bench) if TASKS[experiment.model.task].solved else None
    heads = head_methods(bench, experiment.adapter, labelled) if labelled else Heads()
    program = build_program(loaded, bench, heads)
    state = _first_state(bench, experiment)
    for algorithm in program.algorithms.values():
        state = algorithm.server.init(state)
    common = common_examples(objective, data)
    return Setup(loaded, data, base, built, bench, labelled, program, Position(state), common)


def load_data(loaded: Loaded) -> FederatedData:
    """The federation's data, partitioned as the file says.

    Raises:
        DataError: when rows cannot be read or labels do not fit.
    """
    section = loaded.experiment.data
    partition = None
    if section.partition is not None:
        bound = resolve(section.partition, package="atoll.data.partition", where=loaded.where)
        partition = bound()
    return load(
        section.path,
        partition=partition,  # type: ignore[arg-type]
        columns=section.columns,
        labels=section.labels,
        holdout=section.holdout,
        seed=loaded.experiment.seed,
    )


def _bench(
    experiment: Experiment, base: Base, built: Built, objective: Objective, data: FederatedData
) -> Bench:
    device = _device(experiment.train.device)
    base.model.to(device)
    solved = TASKS[experiment.model.task].solved and experiment.adapter.head != "train"
    train_head = experiment.adapter.train_head
    bench = Bench(
        model=built.model,
        objective=objective,
        examples=cached_examples(objective, data),
        settings=experiment.train,
        head=base.head,
        train_head=not solved if train_head is None else train_head,
        group_size=1,
        num_rounds=max(experiment.federation.num_rounds, 1),
        device=device,
    )
    wanted = experiment.train.group_size
    if built.alone is not None:
        return bench
    if wanted == "auto":
        wanted = group_size(bench, clients=data.clients)
    return replace(bench, group_size=wanted)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"train.device is {name}, which is not here: {error}") from error
    return torch.device(name)


def _first_state(bench: Bench, experiment: Experiment) -> State:
    """The server's state before the first round: adapter and head values as they were made."""
    dtype = torch.float64 if experiment.model.dtype == "float64" else torch.float32
    values = {n: v.to(dtype) for n, v in bench.model.init(experiment.seed).items()}
    if bench.head is None:
        return {"adapter": values}
    head = f"{bench.head}."
    return {
        "adapter": {n: v for n, v in values.items() if not n.startswith(head)},
        "head": {n: v for n, v in values.items() if n.startswith(head)},
    }
