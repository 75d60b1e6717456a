"""The bench of an experiment's clients, and the server's state before the first round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from atoll.adapters.build import Built
from atoll.config import Experiment
from atoll.config.tasks import TASKS
from atoll.core import Program, State
from atoll.errors import ConfigError
from atoll.local.bench import Bench
from atoll.models.base import Base
from atoll.models.objective import Example, Objective

__all__ = ["begun", "bench_of", "device_of", "first_state", "placed_on"]


def bench_of(
    experiment: Experiment,
    base: Base,
    built: Built,
    objective: Objective,
    examples: Callable[[str, str], Sequence[Example]],
) -> Bench:
    """Where clients train one after another, on the CPU."""
    solved = TASKS[experiment.model.task].solved and experiment.adapter.head != "train"
    train_head = experiment.adapter.train_head
    if experiment.train.gradient_checkpointing:
        built.model.recompute()
    return Bench(
        model=built.model,
        objective=objective,
        examples=examples,
        settings=experiment.train,
        head=base.head,
        train_head=not solved if train_head is None else train_head,
        group_size=1,
        num_rounds=max(experiment.federation.num_rounds, 1),
        device=torch.device("cpu"),
    )


def placed_on(bench: Bench, device: torch.device) -> Bench:
    """The same bench on another device."""
    bench.model.model.to(device)
    return replace(bench, device=device)


def device_of(name: str) -> torch.device:
    """The device that the file names; auto: a GPU where there is one.

    Raises:
        ConfigError: when it is not here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"train.device is {name}, which is not here: {error}") from error
    return torch.device(name)


def first_state(bench: Bench, experiment: Experiment) -> State:
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


def begun(program: Program, state: State) -> State:
    """The state with the parts that the program's servers keep."""
    for algorithm in program.algorithms.values():
        state = algorithm.server.init(state)
    return state
