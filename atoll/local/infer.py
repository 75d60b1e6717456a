"""Forward passes without training: scores, predictions, and the features that a head reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atoll.adapters.site import Frame
from atoll.local.bench import Bench
from atoll.models.objective import Batch, Example, Metric
from atoll.models.pooling import last_token
from atoll.tree import Tree

__all__ = ["Rows", "Score", "evaluate", "features", "forward_batches", "measure"]


@dataclass(frozen=True)
class Score:
    """Sums of scores, as the task's metric adds them up, and how many predictions they count."""

    sums: tuple[float, ...] = ()
    count: float = 0.0

    def __add__(self, other: Score) -> Score:
        """The score of both sets of rows together."""
        if not self.count or not other.count:
            return self if self.count else other
        sums = (a + b for a, b in zip(self.sums, other.sums, strict=True))
        return Score(tuple(sums), self.count + other.count)


@dataclass(frozen=True)
class Rows:
    """Scores [n, S] of a set of rows, in their order, and the predictions [n] in each."""

    scores: Tensor
    counts: Tensor

    def score(self, metric: Metric) -> Score:
        """The score of the set."""
        if not len(self.counts):
            return Score()
        return Score(tuple(metric.total(self.scores).tolist()), float(self.counts.sum()))


def forward_batches(
    bench: Bench, values: Tree, examples: Sequence[Example]
) -> Iterator[tuple[list[int], Batch, Tensor]]:
    """Outputs of all examples, in batches of similar length: (row indices, batch, outputs)."""
    size = bench.settings.per_device_eval_batch_size
    order = sorted(range(len(examples)), key=lambda row: len(examples[row]))
    stacked = {name: value.unsqueeze(0).to(bench.device) for name, value in values.items()}
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        chosen = [examples[row] for row in rows]
        batch = bench.objective.collate(chosen).to(bench.device)
        with torch.inference_mode():  # it must end before the caller goes on
            outputs = bench.outputs(stacked, chosen, batch, Frame(1))
        yield rows, batch, outputs


def evaluate(bench: Bench, values: Tree, examples: Sequence[Example]) -> Score:
    """The objective's score of a model (`values` without a client dimension) on examples."""
    return measure(bench, values, examples).score(bench.objective.metric)


def measure(bench: Bench, values: Tree, examples: Sequence[Example]) -> Rows:
    """The scores of examples one by one."""
    metric, found = bench.objective.metric, dict[int, Tensor]()
    for rows, batch, outputs in forward_batches(bench, values, examples):
        found.update(zip(rows, metric.evidence(outputs, batch).cpu().unbind(0), strict=True))
    counts = torch.tensor([bench.objective.count(example) for example in examples])
    if not found:
        return Rows(torch.zeros(0, 0), counts)
    return Rows(metric.settle(torch.stack([found[row] for row in range(len(found))])), counts)


def features(bench: Bench, values: Tree, examples: Sequence[Example]) -> Tensor:
    """What the head reads, [rows, d], in the order of the examples."""
    assert bench.head is not None, "a model without a head has no head features"
    layer = bench.model.model.get_submodule(bench.head)
    caught: list[Tensor] = []

    def catch(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        caught.append(args[0])

    found: dict[int, Tensor] = {}
    hook = layer.register_forward_pre_hook(catch)
    try:
        for rows, batch, _ in forward_batches(bench, values, examples):
            hidden = caught.pop()
            if hidden.dim() == 3:
                hidden = last_token(hidden, batch.inputs["attention_mask"])
            found.update(zip(rows, hidden.float().cpu().clone().unbind(0), strict=True))
    finally:
        hook.remove()
    return torch.stack([found[row] for row in range(len(examples))])
