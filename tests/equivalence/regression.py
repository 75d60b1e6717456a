"""Federated linear regression, where every method's formula can be written out in a few lines.

The model is a non-square layer P = [W b]; a row's loss is ½·‖P·[x 1] − y‖².
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from atoll.adapters.dense import linear_site
from atoll.adapters.stacked import StackedModel
from atoll.config import Train
from atoll.core import Algorithm, Context, Federation, Position, Program, Report
from atoll.local.batches import plan_steps
from atoll.local.bench import Bench
from atoll.models.objective import (
    Batch,
    Example,
    Metric,
    Objective,
    column_sums,
    unsettled,
)
from atoll.round import federate
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.store import memory_store
from atoll.tree import Tree

Rows = tuple[Tensor, Tensor]
"""x [n, d] and y [n, out] of one client."""

SEED, RUN = 3, "regression"


def uneven_rows() -> dict[str, Rows]:
    """7, 2, 5 and 1 rows of 3 features and 2 targets, each client with its own truth."""
    found: dict[str, Rows] = {}
    for number, (client, count) in enumerate({"ada": 7, "bob": 2, "cyd": 5, "dee": 1}.items()):
        draw = torch.Generator().manual_seed(number)
        x = torch.randn(count, 3, generator=draw, dtype=torch.float64)
        truth = torch.randn(2, 4, generator=draw, dtype=torch.float64)
        found[client] = x, _ones(x) @ truth.T
    return found


def _ones(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)


class Linear(nn.Module):
    """One layer."""

    def __init__(self, d_in: int, d_out: int, *, bias: bool) -> None:
        super().__init__()
        self.layer = skip_init(nn.Linear, d_in, d_out, bias=bias, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


def _collate(examples: Sequence[Example | None]) -> Batch:
    shape = next(example for example in examples if example is not None)
    blank = Example(np.zeros_like(shape.ids), np.zeros_like(shape.target))
    rows = [example or blank for example in examples]
    x = torch.from_numpy(np.stack([row.ids for row in rows]))
    y = torch.from_numpy(np.stack([row.target for row in rows]))
    real = torch.tensor([[float(example is not None)] for example in examples])
    return Batch({"x": x}, torch.cat([y, real.double()], dim=1))


def _losses(logits: Tensor, batch: Batch, terms: Tree) -> Tensor:
    y, real = batch.target[:, :-1], batch.target[:, -1]
    return 0.5 * (logits - y).square().sum(1) * real


OBJECTIVE = Objective(
    metric=Metric(
        "loss",
        False,
        evidence=lambda logits, batch: _losses(logits, batch, {}).unsqueeze(1),
        finals=lambda sums, count: {"loss": sums[0] / count},
        settle=unsettled,
        total=column_sums,
        width=1,
    ),
    encode=lambda rows: [],
    count=lambda example: 1,
    collate=_collate,
    terms=lambda examples: {},
    losses=_losses,
)


@dataclass(frozen=True)
class Regression:
    """A federation of rows, and the settings of local SGD."""

    rows: Mapping[str, Rows]
    settings: Train
    bias: bool = True

    @property
    def bench(self) -> Bench:
        x, y = next(iter(self.rows.values()))
        model = Linear(x.shape[1], y.shape[1], bias=self.bias).requires_grad_(False).eval()
        encoded = {
            client: [Example(a.numpy(), b.numpy()) for a, b in zip(*rows, strict=True)]
            for client, rows in self.rows.items()
        }
        return Bench(
            model=StackedModel(model, [linear_site("layer", model.layer)]),
            objective=OBJECTIVE,
            examples=lambda client, split: encoded[client],
            settings=self.settings,
            head=None,
            train_head=False,
            group_size=len(self.rows),
            num_rounds=1,
            device=torch.device("cpu"),
        )

    def start(self) -> Tensor:
        """P of the first round."""
        x, y = next(iter(self.rows.values()))
        draw = torch.Generator().manual_seed(99)
        shape = y.shape[1], x.shape[1] + self.bias
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    def run(
        self,
        algorithm: Callable[[Bench], Algorithm],
        *,
        rounds: int,
        cohort: int | None = None,
        start: Tensor | None = None,
    ) -> Iterator[tuple[Report, Tensor]]:
        """Each round's report, and P after it."""
        built = algorithm(self.bench)
        roster = tuple(self.rows)
        runtime = InProcess(roster, {"train": built}, memory_store())
        program = Program({"train": built}, lambda number: ("train",) * (number > 0))
        plan = Federation(SEED, RUN, rounds, cohort or len(roster))
        state = built.server.init(
            {"adapter": self._named(self.start() if start is None else start)}
        )
        for report in federate(program, runtime, plan, Position(state)):
            if report.round:
                yield report, self.matrix(report.position.server["adapter"])

    def final(self, algorithm: Callable[[Bench], Algorithm], *, rounds: int) -> Tensor:
        *_, (_, matrix) = self.run(algorithm, rounds=rounds)
        return matrix

    def _named(self, matrix: Tensor) -> Tree:
        if not self.bias:
            return {"layer.weight": matrix}
        return {"layer.weight": matrix[:, :-1].clone(), "layer.bias": matrix[:, -1].clone()}

    def matrix(self, tree: Tree) -> Tensor:
        """[W b] as one matrix."""
        if not self.bias:
            return tree["layer.weight"]
        return torch.cat([tree["layer.weight"], tree["layer.bias"].unsqueeze(1)], dim=1)

    def gradients(self, client: str, number: int) -> list[Callable[[Tensor], Tensor]]:
        """The gradient of each local step of a client in round `number`, as functions of P."""
        x, y = self.rows[client]
        context = Context(SEED, RUN, number, number - 1, (), len(self.rows), client)
        epochs = self.settings.num_train_epochs
        size = self.settings.per_device_train_batch_size
        steps = plan_steps([x.shape[1]] * len(x), context, batch_size=size, epochs=epochs)
        inputs = _ones(x) if self.bias else x

        def gradient(batch: list[int]) -> Callable[[Tensor], Tensor]:
            a, b = inputs[batch], y[batch]
            return lambda matrix: (matrix @ a.T - b.T) @ a / len(batch)

        return [gradient(batch) for batch in steps]

    def optimum(self, weights: Mapping[str, float]) -> Tensor:
        """The minimum of Σ weight_k · (mean loss of client k), from the normal equations."""
        gram, target = 0.0, 0.0
        for client, (x, y) in self.rows.items():
            inputs = _ones(x) if self.bias else x
            share = weights[client] / len(x)
            gram = gram + share * inputs.T @ inputs
            target = target + share * inputs.T @ y
        assert isinstance(gram, Tensor)
        return torch.linalg.solve(gram, target).T


def sgd(**settings: object) -> Train:
    """Local SGD without clipping."""
    return Train(optimizer="sgd", max_grad_norm=None, **settings)  # type: ignore[arg-type]
