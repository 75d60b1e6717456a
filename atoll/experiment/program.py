"""Which algorithms take turns in a run, and in which rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from atoll.algorithms.heads.fed3r import fed3r
from atoll.algorithms.heads.fedlda import fedlda
from atoll.algorithms.heads.fedlogistic import fedlogistic
from atoll.algorithms.heads.fedncm import fedncm
from atoll.config import Adapter, Call, Loaded, resolve
from atoll.core import (
    Aggregator,
    Algorithm,
    Program,
    Server,
    Stage,
)
from atoll.errors import AtollError, ConfigError
from atoll.experiment.wrapping import wrapped
from atoll.local.bench import Bench
from atoll.local.evaluation import evaluation
from atoll.local.statistics import Labelled, head_shapes
from atoll.protection import Protection, Spread
from atoll.servers.steps import following
from atoll.stages import uniform

__all__ = ["Heads", "build_program", "head_methods"]


@dataclass(frozen=True)
class Heads:
    """How the head is solved: from statistics, then by `steps` refining exchanges."""

    solve: Algorithm | None = None
    refine: Algorithm | None = None
    steps: int = 0

    @property
    def sequence(self) -> tuple[Algorithm, ...]:
        """The exchanges of one fit, in order."""
        if self.solve is None:
            return ()
        return (self.solve, *((self.refine,) * self.steps if self.refine else ()))


def head_methods(bench: Bench, settings: Adapter, labelled: Labelled) -> Heads:
    """The exchanges that `adapter.head` stands for; `labelled` gives a client's features."""
    # A discriminant needs classes, and a bias, which the heads of decoders have not.
    usual = "lda" if head_shapes(bench).bias and bench.objective.real is None else "ridge"
    kind = settings.head or usual
    if kind == "train":
        return Heads()
    if kind == "means":
        return Heads(fedncm(bench, labelled))
    if kind == "ridge":
        return Heads(fed3r(bench, labelled, penalty=settings.head_ridge))
    if kind == "lda":
        return Heads(fedlda(bench, labelled))
    # Ridge is sure of nothing: a discriminant's posteriors are too sure, and are slow to unlearn.
    start = fed3r(bench, labelled)
    return Heads(start, fedlogistic(bench, labelled), settings.head_exchanges)


def build_program(
    loaded: Loaded,
    bench: Bench,
    heads: Heads,
    protection: Protection | Spread | None = None,
    *,
    measured: bool = True,
) -> Program:
    """Head first, then adapter rounds, refits when they are due, evaluations when they are due.

    measured: whether clients may tell how the model does on their own rows.
    """
    experiment = loaded.experiment
    if experiment.privacy.on and heads.solve is not None:
        raise ConfigError(
            f"{loaded.where('adapter.head')}: the head would be solved from statistics of clients' "
            "rows, which no noise hides; under privacy set adapter.head to train"
        )
    parts = {"evaluation": evaluation(bench)}
    parts |= {algorithm.name: algorithm for algorithm in heads.sequence}
    rounds = experiment.federation.num_rounds
    # Made in any case: a wrong name is one, also where nothing trains.
    packing = [_part(loaded, call, "atoll.stages") for call in
               experiment.federation.broadcast_stages]  # fmt: skip
    training = _adapter_algorithm(loaded, bench, packing, protection)
    if experiment.adapter.method != "none" or bench.train_head:
        parts["train"] = training
    if packing:
        parts = {n: replace(one, server=following(one.server, packing)) for n, one in parts.items()}

    def order(number: int) -> tuple[str, ...]:
        names: tuple[str, ...] = ()
        last = number == rounds
        if number > 0 and "train" in parts:
            names += ("train",)
        refit = experiment.adapter.refit_every
        # A head that trains after it was solved is not thrown away at the end.
        due = (last and not bench.train_head) or (refit is not None and number % refit == 0)
        if number == 0 or (due and "train" in parts):
            names += tuple(algorithm.name for algorithm in heads.sequence)
        if measured and (last or number % experiment.evaluate.every == 0):
            names += ("evaluation",)
        return names

    return Program(parts, order)


def _adapter_algorithm(
    loaded: Loaded, bench: Bench, packing: Sequence[Stage], protection: Protection | Spread | None
) -> Algorithm:
    """The algorithm that the file names, with the stages, aggregator and server that it names."""
    federation = loaded.experiment.federation
    factory = resolve(federation.algorithm, package="atoll.algorithms", where=loaded.where)
    algorithm = cast(Algorithm, _made(loaded, federation.algorithm, lambda: factory(bench)))
    stages: list[Stage] = [_part(loaded, call, "atoll.stages") for call in federation.stages]
    aggregator: Aggregator = algorithm.aggregator
    if federation.aggregator is not None:
        if aggregator.name != "mean":
            raise ConfigError(
                f"{loaded.where('federation.aggregator')}: algorithm '{algorithm.name}' brings an "
                "aggregator of its own; leave federation.aggregator out"
            )
        aggregator = _part(loaded, federation.aggregator, "atoll.aggregators")
    server: Server = algorithm.server
    if federation.server is not None:
        if server.name != "average":
            raise ConfigError(
                f"{loaded.where('federation.server')}: algorithm '{algorithm.name}' brings a "
                "server of its own; leave federation.server out"
            )
        server = _part(loaded, federation.server, "atoll.servers")
    own = [stage for stage in algorithm.stages if not stage.weighs]
    weighing = [stage for stage in algorithm.stages if stage.weighs]
    if any(stage.weighs for stage in stages):
        weighing = []
    elif not aggregator.weighted:
        weighing = [uniform()]
    hidden = (*own, *stages)
    algorithm = replace(
        algorithm, stages=(*weighing, *hidden), aggregator=aggregator, server=server
    )
    if protection is not None:
        algorithm = _made(
            loaded, federation.algorithm, lambda: protection.applied(algorithm, hidden)
        )
    return replace(algorithm, server=wrapped(loaded, bench, algorithm.server, packing))


def _part(loaded: Loaded, call: Call, package: str) -> Any:
    return _made(loaded, call, resolve(call, package=package, where=loaded.where))


def _made(loaded: Loaded, call: Call, make: Callable[[], Any]) -> Any:
    """What the file's function makes; an argument that it refuses is told with its place."""
    try:
        return make()
    except AtollError as error:
        place = loaded.where(call.path)
        if place == "default":  # of a function that the file does not name
            raise
        raise type(error)(f"{place}: {error}") from error
