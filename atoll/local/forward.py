"""One forward pass over sets of rows, each under values of its own: clients, or single rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from atoll import rng
from atoll.adapters.site import Frame
from atoll.local.bench import Bench, broadcast_values
from atoll.local.job import Job
from atoll.models.objective import Example
from atoll.tree import Tree, stack

__all__ = ["Forward", "Rows"]


@dataclass(frozen=True)
class Rows:
    """Rows under one set of values: the client that owns them, and where in its step they stand."""

    owner: int
    place: int
    examples: Sequence[Example]


class Forward:
    """Losses of rows of the clients of a stack.

    like: what trains, without a client dimension.   ranks: as a Frame has them.
    """

    def __init__(
        self, bench: Bench, jobs: Sequence[Job], like: Tree, ranks: dict[str, tuple[int, ...]]
    ) -> None:
        self.bench, self.jobs, self.ranks = bench, jobs, ranks
        self.held = _held(jobs, like, bench.device)
        terms = [bench.objective.terms(job.examples) for job in jobs]
        self.terms = {name: value.to(bench.device) for name, value in stack(terms).items()}

    def losses(self, values: Tree, sets: Sequence[Rows], number: int) -> Tensor:
        """The sum of the losses of each set of rows [N], under values [N, …], at a step."""
        bench, count = self.bench, len(sets)
        width = max(len(one.examples) for one in sets)
        flat = [row for one in sets for row in _padded(one.examples, width)]
        batch = replace(bench.objective.collate(flat).to(bench.device), clients=count)
        extents = tuple(
            (
                len(one.examples) * batch.views,
                None if batch.length is None else max(map(len, one.examples), default=0),
            )
            for one in sets
        )
        owners = [one.owner for one in sets]
        ranks = {name: [own[k] for k in owners] for name, own in self.ranks.items()}
        frame = Frame(count, extents, self._generators(sets, number), ranks)
        at = torch.tensor(owners, device=bench.device)
        held = {name: value if len(value) == 1 else value[at] for name, value in self.held.items()}
        outputs = bench.outputs({**values, **held}, flat, batch, frame)
        terms = {name: value[at].repeat_interleave(width, 0) for name, value in self.terms.items()}
        return bench.objective.losses(outputs, batch, terms).view(count, width).sum(1)

    def _generators(self, sets: Sequence[Rows], number: int) -> tuple[torch.Generator, ...] | None:
        """For dropout, one a set."""
        if not self.bench.model.drops:
            return None
        found = []
        for one in sets:
            seed, at = self.jobs[one.owner].seed, self.jobs[one.owner].request.context
            address = ("dropout", at.run, at.round, at.client, number, one.place)
            found.append(rng.generator(seed, *address))
        return tuple(found)


def _padded(rows: Sequence[Example], width: int) -> list[Example | None]:
    return [*rows, *[None] * (width - len(rows))]


def _held(jobs: Sequence[Job], like: Tree, device: torch.device) -> Tree:
    """Values that are broadcast but not trained: [1, …] where all clients got the same ones."""
    held = [
        {name: value for name, value in broadcast_values(job.request.payload).items()
         if name not in like}
        for job in jobs
    ]  # fmt: skip
    first = held[0]
    same = all(
        tree[name] is first[name] or torch.equal(tree[name], first[name])
        for tree in held[1:]
        for name in first
    )
    return {name: value.to(device) for name, value in stack(held[:1] if same else held).items()}
