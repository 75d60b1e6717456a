"""How much memory a run takes: one step, one batch and one exchange, counted tensor by tensor.

Between one row a client and its whole batch, and from two clients to more, it is nearly a line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from atoll.core import Context, Reply, Request, State
from atoll.experiment.program import head_methods
from atoll.experiment.setup import Setup
from atoll.local.bench import model_values
from atoll.local.infer import measure
from atoll.local.optimizer import optimizer
from atoll.local.statistics import head_shapes
from atoll.models.locate import fingerprint
from atoll.models.objective import Example
from atoll.plan.live import peak_bytes
from atoll.plan.machine import Machine, peak_rss, rss
from atoll.plan.rehearsal import exchange, of_one_step, requests, trainer
from atoll.plan.surface import Row, Surface
from atoll.plan.work import most_measured
from atoll.round import answer
from atoll.tree import nbytes

__all__ = ["Needs", "held", "needs_of", "room_of"]


@dataclass(frozen=True)
class Needs:
    """What parts of a run take, in bytes of tensors beside what is there before they begin.

    before: bytes of this process, or on its GPU, with model, rows and libraries.
    highest: the most so far.
    head: a client's sums and the server's solution, by its rows.
    server: the server's state.   client: what one client keeps for itself.
    score: what is kept of one measured row.
    """

    before: int
    highest: int
    training: Surface
    forward: Surface
    head: Row
    server: int
    client: int
    score: int


def held(device: torch.device) -> tuple[int, int]:
    """Bytes that this process holds where it computes: now, and the most so far."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    return rss(), peak_rss()


def room_of(device: torch.device, machine: Machine) -> int:
    """Bytes that it may hold there."""
    now, _ = held(device)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else machine.free
    return int(free) + now


Peak = Callable[[int, int], int]
"""(clients, rows of each) -> the most bytes of a pass of the longest row, so many times."""


def needs_of(setup: Setup, room: int) -> Needs:
    """Try one of everything that the run will do, in less than half of `room` bytes."""
    settings, stacked = setup.bench.settings, setup.bench.group_size > 1
    trained, measured = _trained(setup, room), _measured(setup)
    length = len(_longest(setup, "train"))
    # First the smallest of each: what is met for the first time stays, and is no part's own. A run
    # reads all weights for their fingerprint, also those that were only mapped from their file.
    fingerprint(setup.base.backbone)
    trained(1, 1)
    measured(1, 1)
    head, server = _head(setup)
    before, _ = held(setup.bench.device)
    # No more rows than the run ever takes at once: what a trial takes counts as taken so far.
    there = sum(count.train for count in setup.data.counts.values())
    rows = min(settings.per_device_train_batch_size, there)
    training = _surface(trained, rows, room // 2, stacked=stacked)
    forward = _surface(measured, most_measured(setup), room // 2, stacked=False)
    values = model_values(setup.start.server)
    score = measure(setup.bench, values, [_longest(setup, "test")]).scores.nbytes
    return Needs(
        before,
        held(setup.bench.device)[1],
        replace(training, length=max(length, 1)),
        replace(forward, length=max(len(_longest(setup, "test")), 1)),
        head,
        server,
        _own_state(setup),
        score,
    )


def _surface(peak: Peak, rows: int, room: int, *, stacked: bool) -> Surface:
    """Of one client and two, with one row each and with `rows`, or as many as surely fit."""
    one = peak(1, 1)
    # No row takes more than one alone.
    many = max(1, min(rows, room // max(2 * one, 1)))
    one_many = peak(1, many)
    if not stacked:
        return Surface(one, one_many, 2 * one, 2 * one_many, many)
    return Surface(one, one_many, peak(2, 1), peak(2, many), many)


def _trained(setup: Setup, room: int) -> Peak:
    """An adapter round of clients that take one step each, from broadcast to the new state.

    What cannot fit into `room` bytes is not tried: there, it is the least that a stack takes.
    """
    settings, state = setup.bench.settings, setup.start.server
    parts = ("adapter", "head") if setup.bench.train_head else ("adapter",)
    values = sum(nbytes(state.get(part, {})) for part in parts)
    # A stack holds where its clients start, where they are, their gradients, and their moments.
    buffers = 3 + len(optimizer(settings).init(torch.zeros(1, 1)))

    def peak(clients: int, rows: int) -> int:
        if "train" not in setup.program.algorithms:
            return 0
        if clients * buffers * values > room:
            return clients * buffers * values
        bench = of_one_step(setup, _longest(setup, "train"), clients=clients, rows=rows)
        algorithm, names = trainer(setup, bench), [str(number) for number in range(clients)]
        return peak_bytes(lambda: exchange(algorithm, names, setup.start.server))

    return peak


def _measured(setup: Setup) -> Peak:
    """A batch of evaluation."""
    values, row = model_values(setup.start.server), _longest(setup, "test")

    def peak(clients: int, rows: int) -> int:
        return peak_bytes(lambda: measure(setup.bench, values, [row] * rows))

    return peak


def _longest(setup: Setup, split: str) -> Example:
    """The longest training row, or the longest of all."""
    rows = [row for name in setup.data.clients for row in setup.bench.examples(name, "train")]
    if split == "test":
        rows += [*setup.all_held_out(), *(setup.common_test() or [])]
    return max(rows, key=len)


def _own_state(setup: Setup) -> int:
    """Bytes that a client keeps between rounds."""
    if "train" not in setup.program.algorithms:
        return 0
    algorithm = trainer(setup, of_one_step(setup, _longest(setup, "train"), clients=1, rows=1))
    context = Context(0, "rehearsal", 0, 0, ("0",), 1, "0")
    (reply,) = answer(algorithm, requests(algorithm, [context], setup.start.server))
    return _nbytes(reply.state) if isinstance(reply, Reply) else 0


def _head(setup: Setup) -> tuple[Row, int]:
    """Of features that are made up: sums over them, and what the server solves from those."""
    if setup.labelled is None:
        return Row(), _nbytes(setup.start.server)
    (few, server), (many, _) = (_solving(setup, rows) for rows in (64, 2 * 64))
    row = (many - few) / 64
    return Row(few - 64 * row, row), server


def _solving(setup: Setup, rows: int) -> tuple[int, int]:
    """The most bytes, and those of the server's state after it."""
    shapes = head_shapes(setup.bench)
    states = [setup.start.server]

    def made_up(request: Request) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(rows, shapes.columns, generator=generator)
        if setup.bench.objective.real is not None:
            return features, torch.randn(rows, shapes.labels, generator=generator)
        return features, torch.arange(rows) % shapes.labels

    def solve() -> None:
        for algorithm in head_methods(setup.bench, setup.experiment.adapter, made_up).sequence[:2]:
            states.append(exchange(algorithm, ["0"], states.pop()).position.server)

    return peak_bytes(solve), _nbytes(states[-1])


def _nbytes(state: State) -> int:
    return sum(nbytes(tree) for tree in state.values())
