"""Causal language modelling: completion-only loss, rows without a prediction, packing."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from atoll.models.objective import Batch, Example, Objective, collate_text
from atoll.models.texts import IGNORED, example_of
from atoll.tree import Tree

__all__ = ["causal", "pack"]


def causal(
    tokenizer: Any,
    *,
    max_length: int,
    completion_only: bool = True,
    packing: bool = False,
) -> Objective:
    """Next-token cross-entropy over messages, prompt/completion, Alpaca's fields or text.

    Rows of which nothing is to be predicted within max_length are left out.

    completion_only: prompts and the turns of others are read, not predicted.
    packing: rows share a sequence of max_length without seeing each other.
    """

    def encode(rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        examples = (example_of(tokenizer, row, completion_only=completion_only) for row in rows)
        cut = (_cut(example, max_length) for example in examples)
        # A row without a prediction has no loss, and would count as a row with a loss of zero.
        kept = [example for example in cut if _predictions(example)]
        return pack(kept, max_length) if packing else kept

    def no_terms(examples: Sequence[Example]) -> Tree:
        return {}

    return Objective(
        metric="perplexity",
        higher_is_better=False,
        encode=encode,
        count=_predictions,
        collate=functools.partial(
            collate_text, pad_token_id=tokenizer.pad_token_id, token_targets=True
        ),
        terms=no_terms,
        losses=_losses,
        scores=lambda logits, batch: _losses(logits, batch, {}),
        final=lambda mean: math.exp(min(mean, 700.0)),
    )


def _predictions(example: Example) -> int:
    return int((example.target[1:] != IGNORED).sum())


def _cut(example: Example, max_length: int) -> Example:
    return Example(example.ids[:max_length], example.target[:max_length])


def pack(examples: Sequence[Example], max_length: int) -> list[Example]:
    """First-fit decreasing; the first token of each row is never predicted from another row's."""
    bins: list[list[Example]] = []
    room: list[int] = []
    for example in sorted(examples, key=len, reverse=True):
        place = next((i for i, free in enumerate(room) if free >= len(example)), None)
        if place is None:
            place = len(bins)
            bins.append([])
            room.append(max_length)
        bins[place].append(example)
        room[place] -= len(example)
    return [_join(rows) for rows in bins]


def _join(rows: Sequence[Example]) -> Example:
    targets = [row.target.copy() for row in rows]
    for target in targets:
        target[0] = IGNORED
    return Example(
        np.concatenate([row.ids for row in rows]),
        np.concatenate(targets),
        np.concatenate([np.arange(len(row)) for row in rows]),
        rows=len(rows),
    )


def _losses(logits: Tensor, batch: Batch, terms: Tree) -> Tensor:
    target = batch.target[:, 1:]
    # In bfloat16 a sum of losses has three digits.
    exact = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32))
    losses = cross_entropy(exact.transpose(1, 2), target, reduction="none", ignore_index=IGNORED)
    return losses.sum(1)
