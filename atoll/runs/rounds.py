"""The rounds of a run, as the loop reports them, with the seconds that each took."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from atoll.core import Failure, Federation, Position, Reply, Report, Runtime, Task
from atoll.experiment.setup import Setup
from atoll.protection import Protection, Spread
from atoll.round import federate
from atoll.runs.account import Account
from atoll.runs.where import Observer, Where

__all__ = ["Under", "reports"]


@dataclass(frozen=True)
class Under:
    """Who watches the rounds of a run, where its clients are, and what it may spend."""

    observer: Observer
    where: Where
    account: Account


def reports(
    setup: Setup, path: Path, position: Position, under: Under
) -> Iterator[tuple[Report, float]]:
    """The rounds after `position` of the run in the directory `path`, and their seconds."""
    federation, protection = setup.experiment.federation, setup.protection
    plan = Federation(
        seed=setup.experiment.seed,
        run="federated",
        num_rounds=federation.num_rounds,
        clients_per_round=_cohort(setup),
        # Under noise who is absent counts as zero, whoever that is.
        min_clients=federation.min_clients if protection is None else 0,
        staleness=federation.staleness,
        sample=None if protection is None else partial(_secret, protection, setup.data.clients),
    )
    if position.round >= federation.num_rounds:
        return
    begun = time.perf_counter()
    with under.where.opened(setup, path, under.observer.note) as runtime:
        watched = under.account.over(_Watched(runtime, under.observer.step))
        rounds = federate(setup.program, watched, plan, position)
        del position  # a state is as large as the model: none is kept beside that of now
        for report in rounds:
            yield report, time.perf_counter() - begun
            begun = time.perf_counter()


def _secret(
    protection: Protection | Spread,
    members: tuple[str, ...],
    number: int,
    exchange: int,
    roster: tuple[str, ...],
) -> tuple[str, ...]:
    """A cohort of those for whom the noise was solved, as far as they are still there."""
    key = protection.vault.key(exchange)
    return tuple(
        client for client in protection.drawing.cohort(key, number, members) if client in roster
    )


def _cohort(setup: Setup) -> int:
    """Clients of a round; where no number is named all of them, also those that join later."""
    federation = setup.experiment.federation
    named = federation.clients_per_round or federation.fraction_train
    return setup.clients_per_round if named else sys.maxsize


@dataclass(frozen=True)
class _Watched:
    """A runtime that tells how many of the cohort have answered."""

    inner: Runtime
    step: Callable[[str, int, int], None]

    @property
    def roster(self) -> tuple[str, ...]:
        return self.inner.roster

    def call(self, tasks: Sequence[Task], clients: Sequence[str]) -> Iterator[Reply | Failure]:
        what = f"round {tasks[0].context.round}: {tasks[0].algorithm}"
        self.step(what, 0, len(clients))
        for done, reply in enumerate(self.inner.call(tasks, clients), start=1):
            self.step(what, done, len(clients))
            yield reply
