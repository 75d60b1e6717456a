"""From examples to padded batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from atoll.models.objective import Batch, Example

__all__ = ["IGNORED", "collate_text"]

IGNORED = -100
"""The target of what is not predicted."""


def collate_text(
    examples: Sequence[Example | None], *, pad_token_id: int, token_targets: bool
) -> Batch:
    """Pad token ids to the longest example; a padding row attends to its first position only."""
    real = [example for example in examples if example is not None]
    length = max((len(example) for example in real), default=1)
    ids = np.full((len(examples), length), pad_token_id, dtype=np.int64)
    mask = np.zeros((len(examples), length), dtype=np.int64)
    target = np.full((len(examples), length if token_targets else 1), IGNORED, dtype=np.int64)
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
    return Batch(inputs, torch.from_numpy(target), length)
