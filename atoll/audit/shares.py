"""Shares of noise that clients add, in a secure sum of the run's own code."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from atoll.algorithms.fedavg import fedavg
from atoll.audit.canary_algorithm import still
from atoll.audit.noise_seen import MOST_VALUES, NoiseSeen, measured, travelling
from atoll.audit.trial import Trial
from atoll.core import Federation, Position, Program, Reply, Request
from atoll.local.bench import model_values
from atoll.protection import Spread, secured, simulated
from atoll.protection.securing import Securing
from atoll.round import federate
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.store import memory_store
from atoll.tree import Tree, scale

__all__ = ["noise_of_shares"]


def noise_of_shares(trial: Trial, spread: Spread, promised: float) -> NoiseSeen:
    """What the smallest sum that is opened shows, of clients whose updates are zero: noise alone.

    promised: over clip, of the shares that count, which are those of honest clients.
    """
    floor, values = spread.terms.floor, travelling(trial)
    if floor * values > MOST_VALUES:
        return NoiseSeen(untried=f"{floor} clients with {values:,} values each take too long")
    total, spread = _opened(trial, spread, tuple(str(n) for n in range(floor)))
    assert spread.total is not None, "sums are seen, and no updates"
    honest = floor - spread.total.colluding
    share = math.sqrt(honest / floor) / spread.clip
    return measured({name: value.double() * share for name, value in total.items()}, promised)


def _opened(trial: Trial, spread: Spread, clients: tuple[str, ...]) -> tuple[Tree, Spread]:
    """A sum over clients that send nothing but noise, by a round of theirs."""
    plain = fedavg(trial.bench)
    like = plain.client.template(plain.server.broadcast(trial.state, clients[0]))

    def work(requests: Sequence[Request]) -> Iterator[Reply]:
        for request in requests:
            yield Reply(request.context.client, still(like))

    plain = replace(plain, client=replace(plain.client, work=work))
    spread = spread.fitted(plain, trial.state)
    hidden = spread.applied(plain, ())
    securing = Securing(
        spread.settings, simulated(clients, spread.vault), spread.drawing.most, spread
    )
    program = Program({"train": hidden}, lambda number: ("train",))
    program = secured(program, securing, trial.state)
    state = program.algorithms["train"].server.init(trial.at_zero().state)
    runtime = InProcess(clients, program.algorithms, memory_store())
    federation = Federation(0, "audit", 1, len(clients), min_clients=0)
    (report,) = federate(program, runtime, federation, Position(state, round=0))
    return scale(model_values(report.position.server), spread.drawing.expected), spread
