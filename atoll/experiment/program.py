"""Which algorithms take turns in a run, and in which rounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

from atoll.algorithms.heads.fed3r import fed3r
from atoll.algorithms.heads.fedlda import fedlda
from atoll.algorithms.heads.fedlogistic import fedlogistic
from atoll.algorithms.heads.fedncm import fedncm
from atoll.algorithms.heads.prototypes import class_counts
from atoll.config import Adapter, Loaded, resolve
from atoll.core import (
    Aggregator,
    Algorithm,
    Channel,
    Payload,
    Program,
    Server,
    Stage,
    State,
)
from atoll.errors import ConfigError
from atoll.local.bench import Bench
from atoll.local.evaluation import evaluation
from atoll.local.statistics import Labelled
from atoll.stages import uniform

__all__ = ["Heads", "build_program", "head_methods"]


@dataclass(frozen=True)
class Heads:
    """How the head is solved: from statistics, then by `steps` refining exchanges.

    opening: an exchange that comes once, before the first solution.
    """

    opening: Algorithm | None = None
    solve: Algorithm | None = None
    refine: Algorithm | None = None
    steps: int = 0

    def sequence(self, *, first: bool) -> tuple[Algorithm, ...]:
        """The exchanges of one (re)fit, in order."""
        if self.solve is None:
            return ()
        opening = (self.opening,) if self.opening and first else ()
        return (*opening, self.solve, *((self.refine,) * self.steps if self.refine else ()))


def head_methods(bench: Bench, settings: Adapter, labelled: Labelled) -> Heads:
    """The exchanges that `adapter.head` stands for; `labelled` gives a client's features."""
    kind = settings.head or "lda"
    if kind == "train":
        return Heads()
    if kind == "means":
        return Heads(solve=fedncm(bench, labelled))
    if kind == "ridge":
        solve = fed3r(bench, labelled, penalty=settings.head_ridge)
        return Heads(class_counts(bench), solve)
    if kind == "lda":
        return Heads(solve=fedlda(bench, labelled))
    start = fedlda(bench, labelled)
    return Heads(None, start, fedlogistic(bench, labelled), settings.head_exchanges)


def build_program(loaded: Loaded, bench: Bench, heads: Heads) -> Program:
    """Head first, then adapter rounds, refits when they are due, evaluations when they are due."""
    experiment = loaded.experiment
    parts = {"evaluation": evaluation(bench)}
    parts |= {algorithm.name: algorithm for algorithm in heads.sequence(first=True)}
    rounds = experiment.federation.num_rounds
    if experiment.adapter.method != "none" or bench.train_head:
        parts["train"] = _adapter_algorithm(loaded, bench)

    def order(number: int) -> tuple[str, ...]:
        names: tuple[str, ...] = ()
        last = number == rounds
        if number > 0 and "train" in parts:
            names += ("train",)
        refit = experiment.adapter.refit_every
        due = last or (refit is not None and number % refit == 0)
        if number == 0 or (due and "train" in parts):
            names += tuple(algorithm.name for algorithm in heads.sequence(first=number == 0))
        if last or number % experiment.evaluate.every == 0:
            names += ("evaluation",)
        return names

    return Program(parts, order)


def _adapter_algorithm(loaded: Loaded, bench: Bench) -> Algorithm:
    """The algorithm that the file names, with the stages, aggregator and server that it names."""
    federation = loaded.experiment.federation
    factory = resolve(federation.algorithm, package="atoll.algorithms", where=loaded.where)
    algorithm = cast(Algorithm, factory(bench))
    stages: list[Stage] = [_part(loaded, call, "atoll.stages") for call in federation.stages]
    aggregator: Aggregator = algorithm.aggregator
    if federation.aggregator is not None:
        aggregator = _part(loaded, federation.aggregator, "atoll.aggregators")
    server: Server = algorithm.server
    if federation.server is not None:
        if server.name != "average":
            raise ConfigError(
                f"{loaded.where('federation.server')}: algorithm '{algorithm.name}' brings a "
                "server of its own; leave federation.server out"
            )
        server = _part(loaded, federation.server, "atoll.servers")
    weighing = [stage for stage in algorithm.stages if stage.weighs]
    if any(stage.weighs for stage in stages):
        weighing = []
    elif not aggregator.weighted:
        weighing = [uniform()]
    if loaded.experiment.adapter.local_head == "prototypes" and not bench.train_head:
        server = _with_prototypes(server)
    return replace(algorithm, stages=(*weighing, *stages), aggregator=aggregator, server=server)


def _with_prototypes(inner: Server) -> Server:
    """Local training sees class prototypes in the head's place, once the statistics gave them."""

    def broadcast(state: State, client: str) -> Payload:
        payload = inner.broadcast(state, client)
        return (
            payload | {"head": Channel(state["prototypes"])} if "prototypes" in state else payload
        )

    return replace(inner, broadcast=broadcast)


def _part(loaded: Loaded, call: Any, package: str) -> Any:
    bound: Callable[[], Any] = resolve(call, package=package, where=loaded.where)
    return bound()
