"""Targets that are numbers, [1, C] in an example and [N, C] in a batch; NaN where none is known."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atoll.models.collate import collate_text
from atoll.models.objective import Batch, Example

__all__ = ["number_collation", "row_means"]


def number_collation(tokenizer: Any, width: int) -> Callable[[Sequence[Example | None]], Batch]:
    """Texts with C numbers each; a padding row has none."""
    plain = functools.partial(
        collate_text, pad_token_id=tokenizer.pad_token_id, token_targets=False
    )

    def collate(examples: Sequence[Example | None]) -> Batch:
        nothing = np.full((1, width), np.nan)
        known = [nothing if example is None else example.target for example in examples]
        none = np.zeros(0, dtype=np.int64)
        bare = [None if example is None else replace(example, target=none) for example in examples]
        return replace(plain(bare), target=torch.from_numpy(np.concatenate(known)).float())

    return collate


def row_means(loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, target: Tensor) -> Tensor:
    """The mean over C of an element-wise loss, [N]; exactly 0 for a row without numbers."""
    outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    unknown = target.isnan()
    # The loss never sees a NaN: its gradient would be one, even where it is not taken.
    found = loss(outputs, target.to(outputs.dtype).masked_fill(unknown, 0.0))
    return found.masked_fill(unknown, 0.0).mean(1)
