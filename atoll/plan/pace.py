"""How fast this machine is at a run's own work: a few steps, batches and exchanges, timed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from atoll.core import Algorithm, Context, Failure, Payload, State
from atoll.experiment.setup import Setup
from atoll.local.bench import Bench, model_values
from atoll.local.infer import measure
from atoll.models.objective import Batch, Example, Objective
from atoll.plan.clock import Line, Sample, Seconds, fit, now, timed
from atoll.plan.load import forward_load
from atoll.plan.rehearsal import exchange, requests, trainer
from atoll.plan.traffic import blank_reply
from atoll.round import answer

__all__ = ["HeadPace", "folding_pace", "forward_pace", "head_paces", "training_pace"]

BUDGET = 5.0
"""Seconds that each kind of work is tried for, about."""
MOST = 12


def training_pace(setup: Setup, contexts: Sequence[Context]) -> Line:
    """Over (passes, clients of each pass, cells): steps of the first clients that a run asks."""
    samples: list[Sample] = []
    for size in sorted({1, min(setup.bench.group_size, len(contexts))}, reverse=True):
        few = contexts[:size]
        first = _laps(setup, few, steps=2)
        if setup.bench.prefix is not None:
            # What frozen blocks make of a row is another kind of work, and was done just now.
            first = _laps(setup, few, steps=2)
        count = int(min(BUDGET / max(first[-1][1].wall, 1e-6), MOST))
        if setup.bench.prefix is not None and count > 1:
            _laps(setup, few, steps=count + 1)
        # The first pass of all pays for what is met for the first time.
        samples += _laps(setup, few, steps=count + 1)[1:] if count > 1 else first
    if setup.bench.group_size == 1:
        # One client a pass: the two shares cannot be told apart.
        line = fit([((passes, cells), taken) for (passes, _, cells), taken in samples])
        return Line((line.shares[0], Seconds(), line.shares[1]))
    return fit(samples)


def _laps(setup: Setup, contexts: Sequence[Context], *, steps: int) -> list[Sample]:
    """Each pass of so many steps of a stack, from its batch to the next one."""
    marks: list[tuple[Seconds, tuple[float, ...]]] = []
    settings = setup.bench.settings.model_copy(update={"max_steps": steps})
    bench = replace(
        setup.bench,
        objective=_watched(setup.bench, len(contexts), marks),
        settings=settings,
        group_size=len(contexts),
    )
    algorithm = trainer(setup, bench)
    for _ in answer(algorithm, requests(algorithm, contexts, setup.start.server)):
        pass
    return [
        (amounts, after - before) for (before, amounts), (after, _) in itertools.pairwise(marks)
    ]


def _watched(
    bench: Bench, clients: int, marks: list[tuple[Seconds, tuple[float, ...]]]
) -> Objective:
    """The objective, whose every batch leaves a mark: the moment, and how large it is."""

    def collate(examples: Sequence[Example | None]) -> Batch:
        length = max(len(one) for one in examples if one is not None)
        marks.append((now(bench.device), (1, clients, len(examples) * max(length, 1))))
        return bench.objective.collate(examples)

    return replace(bench.objective, collate=collate)


def forward_pace(setup: Setup, rows: Sequence[Example]) -> Line:
    """Over (passes, cells): batches of rows, without training."""
    bench, values = setup.bench, model_values(setup.start.server)
    size = bench.settings.per_device_eval_batch_size
    order = sorted(rows, key=len)
    middle = max(len(order) // 2 - size // 2, 0)
    chosen = [order[:1], order[-1:], order[middle : middle + max(size // 4, 1)],
              order[middle : middle + size], order[-size:]]  # fmt: skip
    measure(bench, values, chosen[0])
    if bench.prefix is not None:
        measure(bench, values, [row for few in chosen for row in few])
    samples: list[Sample] = []
    spent = 0.0
    for few in chosen * 2:
        if spent > BUDGET and len(samples) >= 2:
            break
        load = forward_load([len(one) for one in few], size)
        _, taken = timed(lambda few=few: measure(bench, values, few), bench.device)  # type: ignore[misc]
        samples.append(((load.passes, load.cells), taken))
        spent += taken.wall
    return fit(samples)


def folding_pace(setup: Setup, algorithm: Algorithm) -> Line:
    """Over (exchanges, clients): what is not clients' work, as decoding, adding up and applying."""
    state = algorithm.server.init(setup.start.server)
    context = Context(0, "rehearsal", 0, 0, ("0",), 1, "0")
    reply = blank_reply(algorithm, context, algorithm.server.broadcast(state, "0"))
    exchange(algorithm, ["0"], state, {"0": reply})
    return _folded(setup, algorithm, state, [reply] * 5)[0]


def _folded(
    setup: Setup, algorithm: Algorithm, state: State, replies: Sequence[Payload]
) -> tuple[Line, State]:
    """The line over (exchanges, clients), and the server's state when all have answered."""
    samples: list[Sample] = []
    after = state
    for count in sorted({1, len(replies)}):
        named = {str(number): reply for number, reply in enumerate(replies[:count])}
        report, taken = timed(
            lambda named=named: exchange(algorithm, list(named), state, named),  # type: ignore[misc]
            setup.bench.device,
        )
        samples.append(((1, count), taken))
        after = report.position.server
    return fit(samples), after


@dataclass(frozen=True)
class HeadPace:
    """Of one exchange that solves the head.

    sums: over (clients, rows), from features to what is sent.   fold: over (exchanges, clients).
    """

    sums: Line
    fold: Line


def head_paces(setup: Setup) -> Mapping[str, HeadPace]:
    """Of every exchange before the first round, tried with a small client and one in the middle."""
    ordered = sorted(setup.data.clients, key=lambda name: setup.data.counts[name].train)
    chosen = sorted({ordered[0], ordered[len(ordered) // 2]})
    state, found = setup.start.server, dict[str, HeadPace]()
    for name in setup.program.order(0):
        algorithm = setup.program.algorithms[name]
        if algorithm.kind != "exchange" or name in found:
            continue
        state = algorithm.server.init(state)
        contexts = [Context(0, "rehearsal", 0, 0, tuple(chosen), 1, client) for client in chosen]
        samples: list[Sample] = []
        replies: dict[str, Payload] = {}
        for request in requests(algorithm, contexts, state) * 2:
            client = request.context.client
            if setup.labelled is not None:
                setup.labelled(request)  # its features, which are another kind of work
            (reply,), taken = timed(lambda: list(answer(algorithm, [request])), setup.bench.device)  # noqa: B023
            samples.append(((1, setup.data.counts[client].train), taken))
            if not isinstance(reply, Failure):
                replies[client] = reply.payload
        fold, state = _folded(setup, algorithm, state, list(replies.values()))
        found[name] = HeadPace(fit(samples), fold)
    return found
