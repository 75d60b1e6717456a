"""Forward passes without training: scores, predictions, and the features that a head reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atoll.adapters.site import Frame
from atoll.local.bench import Bench
from atoll.models.objective import Batch, Example
from atoll.models.pooling import last_token
from atoll.tree import Tree

__all__ = ["Score", "evaluate", "features", "forward_batches"]


@dataclass(frozen=True)
class Score:
    """A sum of scores and what it counts (rows, or predicted tokens)."""

    total: float = 0.0
    count: float = 0.0

    @property
    def mean(self) -> float:
        """The mean score; NaN where nothing was counted."""
        return self.total / self.count if self.count else float("nan")


def forward_batches(
    bench: Bench, values: Tree, examples: Sequence[Example]
) -> Iterator[tuple[list[int], Batch, Tensor]]:
    """Logits of all examples, in batches of similar length: (row indices, batch, logits)."""
    size = bench.settings.per_device_eval_batch_size
    order = sorted(range(len(examples)), key=lambda row: len(examples[row]))
    stacked = {name: value.unsqueeze(0).to(bench.device) for name, value in values.items()}
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        batch = bench.objective.collate([examples[row] for row in rows]).to(bench.device)
        with torch.inference_mode():  # it must end before the caller goes on
            logits = bench.model.forward(stacked, batch.inputs, Frame(1))
        yield rows, batch, logits


def evaluate(bench: Bench, values: Tree, examples: Sequence[Example]) -> Score:
    """The objective's score of a model (`values` without a client dimension) on examples."""
    total = 0.0
    for _, batch, logits in forward_batches(bench, values, examples):
        total += float(bench.objective.scores(logits, batch).double().sum())
    return Score(total, float(sum(map(bench.objective.count, examples))))


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
