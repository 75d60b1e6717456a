"""What leaves clients, tried out: the run's own algorithm over rows of the audit's choosing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from atoll.accounting import Everyone
from atoll.adapters.site import Frame
from atoll.algorithms.fedavg import fedavg
from atoll.config import Loaded
from atoll.config.privacy import Privacy
from atoll.core import (
    Algorithm,
    ClientWork,
    Context,
    Failure,
    Federation,
    Payload,
    Position,
    Program,
    Request,
    State,
)
from atoll.errors import RunError
from atoll.experiment.bench import begun
from atoll.experiment.program import Heads, build_program
from atoll.experiment.setup import Setup
from atoll.local.bench import Bench, model_values
from atoll.models.objective import Example
from atoll.protection import Protection, Spread
from atoll.protection.cohorts import Drawing
from atoll.round import answer, decoded, federate
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.store import memory_store
from atoll.tree import Tree, add, scale

__all__ = ["Trial", "gradient_of", "hidden_by", "protected", "summed", "trial_of"]

PARTS = ("adapter", "head")
"""Of a server's state, what trains."""
Rows = Mapping[str, Sequence[Example]]
Cohort = Callable[[int, int, tuple[str, ...]], tuple[str, ...]]


@dataclass(frozen=True)
class Trial:
    """An adapter algorithm over rows of clients, from a state of the server."""

    algorithm: Algorithm
    bench: Bench
    rows: Rows
    state: State

    def payloads(self) -> dict[str, Payload]:
        """What the server gets of each client in a round of all of them, as it decodes it.

        Raises:
            RunError: when a client could not train.
        """
        clients, server = tuple(self.rows), self.algorithm.server
        context = Context(0, "audit", 1, 1, clients, len(clients))
        asked = [Request(context.at(c), server.broadcast(self.state, c)) for c in clients]
        like = self.algorithm.client.template(asked[0].payload)
        found: dict[str, Payload] = {}
        for reply in answer(self.algorithm, asked):
            payload = decoded(self.algorithm, context, reply, like)
            if isinstance(payload, Failure):
                raise RunError(f"the audit could not train {payload.client}: {payload.message}")
            found[reply.client] = payload
        return found

    def at_zero(self) -> Trial:
        """The same from values that are all zero, beside which nothing small is rounded away."""
        zeros: State = {
            part: {name: torch.zeros_like(value) for name, value in self.state[part].items()}
            for part in PARTS
            if part in self.state
        }
        return replace(self, state={**self.state, **zeros})

    def after(self, rounds: int) -> Tree:
        """The model's values after rounds of all clients."""
        *_, last = self.rounds(rounds)
        return last

    def rounds(self, rounds: int, cohort: Cohort | None = None) -> Iterator[Tree]:
        """The model's values after each of so many rounds.

        cohort: (round, exchange, clients) -> whom a round asks; None: all.
        """
        program = Program({"train": self.algorithm}, lambda number: ("train",))
        clients = tuple(self.rows)
        runtime = InProcess(clients, program.algorithms, memory_store())
        federation = Federation(0, "audit", rounds, len(clients), min_clients=0, sample=cohort)
        for report in federate(program, runtime, federation, Position(self.state, round=0)):
            yield model_values(report.position.server)


def trial_of(
    setup: Setup,
    loaded: Loaded,
    values: Tree,
    rows: Rows,
    *,
    rounds: int = 1,
    hidden: bool = False,
) -> Trial | None:
    """The adapter algorithm of a file, without its server's noise, from a model's `values`.

    None where the file trains nothing.   hidden: single rows, where the file hides them.
    """
    bench = replace(
        setup.bench,
        examples=lambda client, split: rows[client],
        group_size=1,
        num_rounds=max(setup.bench.num_rounds, rounds),
        private=setup.bench.private if hidden else None,
    )
    program = build_program(loaded, bench, Heads())
    if "train" not in program.algorithms:
        return None
    parts: State = {
        part: {name: values[name] for name in tree}
        for part, tree in setup.start.server.items()
        if part in PARTS
    }
    return Trial(program.algorithms["train"], bench, rows, begun(program, parts))


def protected(
    trial: Trial, settings: Privacy, *, rounds: int, client: ClientWork | None = None
) -> Trial:
    """The trial with FedAvg under differential privacy of its clients, all of whom take part.

    client: other client work than training.
    """
    clients = len(trial.rows)
    kind = Spread if settings.mechanism == "local" else Protection
    return hidden_by(
        kind(settings, Drawing(clients, float(clients), Everyone()), rounds), trial, client
    )


def hidden_by(protection: Protection | Spread, trial: Trial, client: ClientWork | None) -> Trial:
    """The trial with FedAvg, of which a protection leaves nothing in the open.

    client: other client work than training.
    """
    plain = fedavg(trial.bench)
    algorithm = protection.applied(replace(plain, client=client or plain.client), ())
    return replace(trial, algorithm=algorithm, state=algorithm.server.init(trial.state))


def gradient_of(bench: Bench, values: Tree, examples: Sequence[Example]) -> Tree:
    """The gradient of one step on rows, of all values."""
    leaves = {
        name: value.to(bench.device).unsqueeze(0).requires_grad_() for name, value in values.items()
    }
    batch = bench.objective.collate(examples).to(bench.device)
    frame = Frame(1, ((len(examples) * batch.views, batch.length),))
    outputs = bench.outputs(leaves, examples, batch, frame)
    count = max(sum(map(bench.objective.count, examples)), 1)
    loss = bench.objective.losses(outputs, batch, {}).sum() / count
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {
        name: torch.zeros_like(values[name]) if gradient is None else gradient[0].cpu()
        for name, gradient in zip(leaves, found, strict=True)
    }


def summed(payloads: Sequence[Payload]) -> Tree:
    """What secure aggregation shows of a cohort: the sum of weighted updates."""
    total: Tree = {}
    for payload in payloads:
        weight = float(payload["weight"].tree["value"]) if "weight" in payload else 1.0
        update = scale(payload["update"].tree, weight)
        total = add(total, update) if total else update
    return total
