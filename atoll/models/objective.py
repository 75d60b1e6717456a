"""What a task asks of a model: rows to examples to batches, logits to losses and scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atoll.tree import Tree

__all__ = ["Batch", "Example", "Objective", "collate_text"]


@dataclass(frozen=True)
class Example:
    """One encoded row: token ids, what is to be predicted, and positions where rows are packed.

    target: [1] for a label; [T] for tokens, with −100 where nothing is to be predicted.
    rows: how many rows it holds; more than one where they are packed.
    """

    ids: np.ndarray
    target: np.ndarray
    positions: np.ndarray | None = None
    rows: int = 1

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Batch:
    """Model inputs and targets, padded on the right; target −100 is not counted."""

    inputs: Mapping[str, Tensor]
    target: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        moved = {name: value.to(device) for name, value in self.inputs.items()}
        return Batch(moved, self.target.to(device))


@dataclass(frozen=True)
class Objective:
    """A task's functions.

    encode: rows -> examples, without rows that hold no prediction.
    count: example -> how many predictions it holds.
    collate: examples (None: a padding row) -> Batch of N rows.
    terms: a client's examples -> loss terms of that client (class weights, …), stacked later.
    losses: (logits, batch, terms [N, …]) -> the sum of losses of each row [N].
    scores: (logits, batch) -> the sum of scores of each row [N], for the metric.
    final: mean score -> the metric.
    """

    metric: str
    higher_is_better: bool
    encode: Callable[[Sequence[Mapping[str, Any]]], list[Example]]
    count: Callable[[Example], int]
    collate: Callable[[Sequence[Example | None]], Batch]
    terms: Callable[[Sequence[Example]], Tree]
    losses: Callable[[Tensor, Batch, Tree], Tensor]
    scores: Callable[[Tensor, Batch], Tensor]
    final: Callable[[float], float]


def collate_text(
    examples: Sequence[Example | None], *, pad_token_id: int, token_targets: bool
) -> Batch:
    """Pad token ids to the longest example; a padding row attends to its first position only."""
    real = [example for example in examples if example is not None]
    length = max((len(example) for example in real), default=1)
    ids = np.full((len(examples), length), pad_token_id, dtype=np.int64)
    mask = np.zeros((len(examples), length), dtype=np.int64)
    target = np.full((len(examples), length if token_targets else 1), -100, dtype=np.int64)
    positions = np.zeros((len(examples), length), dtype=np.int64)
    mask[:, 0] = 1
    packed = any(example.positions is not None for example in real)
    for row, example in enumerate(examples):
        if example is None:
            continue
        ids[row, : len(example)] = example.ids
        mask[row, : len(example)] = 1
        target[row, : len(example.target)] = example.target
        if example.positions is not None:
            positions[row, : len(example)] = example.positions
    inputs = {"input_ids": torch.from_numpy(ids)}
    # A model that gets positions and no mask keeps packed rows apart; a padding token then is a
    # row of its own, because its position is 0.
    key, value = ("position_ids", positions) if packed else ("attention_mask", mask)
    inputs[key] = torch.from_numpy(value)
    return Batch(inputs, torch.from_numpy(target))
