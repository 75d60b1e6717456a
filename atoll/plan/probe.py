"""A few learning rates, tried on one client: what its loss becomes, and which rate it would take.

Every trial has an address, as training has: the same file gives the same losses. Only how many
trials there are depends on the time that they take.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from atoll.core import Context, Failure, Request, State
from atoll.experiment.setup import Setup
from atoll.local.bench import Bench, broadcast_values
from atoll.local.infer import forward_batches
from atoll.local.train import train
from atoll.models.objective import Example
from atoll.plan.rehearsal import exchange
from atoll.tree import Tree

__all__ = ["Probe", "Trial", "probe"]

FACTORS = (1.0, 0.3, 3.0, 0.1, 10.0)
"""Of the file's own rate, which is tried first."""
BUDGET = 60.0
FIRST = 4
"""Steps of the first trials; later ones have twice as many each time."""
FEWEST, MEASURED = 16, 64
"""Rows that the loss is measured on: held-out ones, and training rows where those are fewer."""
CLEAR = 0.98
"""Another rate is taken where its loss is below this share of that of the file's own."""
WORSE = 1.5
"""A loss that grew to so many times of what it was has diverged, if it still is a number."""


@dataclass(frozen=True)
class Trial:
    """One rate, after `steps` steps: the loss after them, None where it is no number."""

    learning_rate: float
    steps: int
    after: float | None
    diverged: bool


@dataclass(frozen=True)
class Probe:
    """What one client saw.

    rows: that the loss was measured on, `held_out` or training rows.   before: the loss before.
    take: the rate that it would take; None where all diverged.
    """

    client: str
    rows: int
    held_out: bool
    before: float
    trials: tuple[Trial, ...]
    take: float | None
    seconds: float


@dataclass(frozen=True)
class _Bed:
    """Where trials are made: the client's bench, what it is asked, and rows to measure on."""

    bench: Bench
    request: Request
    rows: Sequence[Example]
    before: float


def probe(
    setup: Setup,
    *,
    budget: float = BUDGET,
    step: Callable[[Trial], None] = lambda trial: None,
    clock: Callable[[], float] = time.monotonic,
) -> Probe:
    """Train the largest client at each rate, in longer and longer trials, until the time is spent.

    step: hears of each trial.
    """
    begun = clock()
    client = max(setup.data.clients, key=lambda name: (setup.data.counts[name].train, name))
    bed, held_out = _bed(setup, client)
    own = setup.experiment.train.learning_rate
    trials: list[Trial] = []
    steps, most = FIRST, _most_steps(setup, client)
    while True:
        steps = min(steps, most)
        for rate in (own * factor for factor in FACTORS):
            if not any(one.learning_rate == rate and one.diverged for one in trials):
                trials.append(_tried(bed, rate, steps))
                step(trials[-1])
        # The next trials take twice as long as these, and the next but one as long as all.
        if steps == most or 3 * (clock() - begun) > budget:
            break
        steps *= 2
    last = [one for one in trials if one.steps == steps]
    return Probe(
        client, len(bed.rows), held_out, bed.before, tuple(trials), _taken(last, own),
        clock() - begun,
    )  # fmt: skip


def _bed(setup: Setup, client: str) -> tuple[_Bed, bool]:
    # One short run has the learning rate's whole course.
    bench = replace(setup.bench, group_size=1, num_rounds=1)
    context = Context(setup.experiment.seed, "probe", 1, 0, (client,), 1, client)
    server = setup.program.algorithms["train"].server
    state = server.init(_solved(setup, client))
    request = Request(context, server.broadcast(state, client))
    held_out = len(bench.examples(client, "test")) >= FEWEST
    rows = bench.examples(client, "test" if held_out else "train")[:MEASURED]
    before = _loss(bench, broadcast_values(request.payload), client, rows)
    return _Bed(bench, request, rows, before), held_out


def _solved(setup: Setup, client: str) -> State:
    """The first state, with a head that is solved from this client's rows where heads are."""
    state = setup.start.server
    for name in setup.program.order(0):
        algorithm = setup.program.algorithms[name]
        if algorithm.kind == "exchange":
            state = exchange(algorithm, [client], state).position.server
    return state


def _most_steps(setup: Setup, client: str) -> int:
    """As many as the client would take if it were asked in every round."""
    train, rows = setup.experiment.train, len(setup.bench.examples(client, "train"))
    size = train.per_device_train_batch_size * train.gradient_accumulation_steps
    each = train.max_steps or math.ceil(rows / size) * train.num_train_epochs
    return max(each * setup.experiment.federation.num_rounds, 1)


def _tried(bed: _Bed, rate: float, steps: int) -> Trial:
    factor = rate / bed.bench.settings.learning_rate
    head = bed.bench.settings.head_learning_rate
    changed = {
        "learning_rate": rate,
        "head_learning_rate": None if head is None else head * factor,
        "max_steps": steps,
    }
    bench = replace(bed.bench, settings=bed.bench.settings.model_copy(update=changed))
    (found,) = train(bench, [bed.request])
    if isinstance(found, Failure):
        return Trial(rate, steps, None, diverged=True)
    values: Tree = {**broadcast_values(bed.request.payload), **found.end}
    after = _loss(bench, values, bed.request.context.client, bed.rows)
    finite = math.isfinite(after)
    diverged = not finite or after > WORSE * max(bed.before, 1e-6)
    return Trial(rate, steps, after if finite else None, diverged)


def _loss(bench: Bench, values: Tree, client: str, rows: Sequence[Example]) -> float:
    """The mean training loss of rows, without dropout."""
    own = bench.objective.terms(bench.examples(client, "train"))
    total = count = 0.0
    for chosen, batch, outputs in forward_batches(bench, values, rows):
        terms = {
            name: value.to(bench.device).unsqueeze(0).expand(len(chosen), *value.shape)
            for name, value in own.items()
        }
        total += float(bench.objective.losses(outputs, batch, terms).sum())
        count += sum(bench.objective.count(rows[row]) for row in chosen)
    return total / max(count, 1)


def _taken(trials: Sequence[Trial], own: float) -> float | None:
    """The rate with the least loss; the file's own where no other is clearly better."""
    fine = {
        one.learning_rate: one.after for one in trials if one.after is not None and not one.diverged
    }
    if not fine:
        return None
    best = min(fine, key=lambda rate: fine[rate])
    if own in fine and fine[best] > CLEAR * fine[own]:
        return own
    return best
