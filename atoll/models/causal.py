"""Causal language modelling: completion-only loss, rows without a prediction, packing."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from atoll.models.collate import IGNORED, collate_text
from atoll.models.encode import uncut
from atoll.models.metrics import perplexity, token_losses
from atoll.models.objective import Example, Objective, no_terms
from atoll.models.texts import example_of

__all__ = ["causal", "pack"]


def causal(
    tokenizer: Any,
    *,
    max_length: int,
    completion_only: bool = True,
    packing: bool = False,
    truncation: bool = True,
) -> Objective:
    """Next-token cross-entropy over messages, prompt/completion, Alpaca's fields or text.

    Rows of which nothing is to be predicted within max_length are left out.

    completion_only: prompts and the turns of others are read, not predicted.
    packing: rows share a sequence of max_length without seeing each other.
    truncation: longer rows are cut; else they are a DataError.
    """

    def encode(rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        examples = (example_of(tokenizer, row, completion_only=completion_only) for row in rows)
        cut = [example.cut(max_length) for example in examples]
        if not truncation:
            uncut(cut, max_length=max_length)
        # A row without a prediction has no loss, and would count as a row with a loss of zero.
        kept = [example for example in cut if _predictions(example)]
        return pack(kept, max_length) if packing else kept

    return Objective(
        metric=perplexity(),
        encode=encode,
        count=_predictions,
        collate=functools.partial(
            collate_text, pad_token_id=tokenizer.pad_token_id, token_targets=True
        ),
        terms=no_terms,
        losses=lambda logits, batch, terms: token_losses(logits, batch),
        drops_rows=True,
    )


def _predictions(example: Example) -> int:
    return int((example.target[1:] != IGNORED).sum())


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
        over=tuple(length for row in rows for length in row.over),
    )
