"""Masked language modelling: tokens are hidden, and the model says what they were.

Devlin, Chang, Lee, Toutanova; BERT; NAACL 2019; https://arxiv.org/abs/1810.04805, section 3.1: of
the chosen tokens 80 % become the mask, 10 % another token, 10 % stay. As in BERT's own code their
number is fixed by the row's length (at least one), and they are drawn without replacement.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from atoll.models.collate import IGNORED, collate_text
from atoll.models.encode import UNKNOWN, encode_texts
from atoll.models.objective import (
    Batch,
    Example,
    Metric,
    Objective,
    column_sums,
    no_terms,
    unsettled,
)

__all__ = ["masked", "pseudo_perplexity"]


def masked(
    tokenizer: Any, *, max_length: int, probability: float = 0.15, truncation: bool = True
) -> Objective:
    """Cross-entropy of masked tokens of texts; special tokens are never masked.

    A text that holds mask tokens keeps them: those are to be filled in, and count for nothing. Of
    other texts the masks follow from the text, so that an evaluation is the same each time; in
    training they are drawn anew for each step. Texts of special tokens alone are left out.

    probability: the share of tokens that are predicted.
    """
    special = np.asarray(sorted(tokenizer.all_special_ids))
    usual = np.setdiff1d(np.arange(len(tokenizer)), special)
    mask_id = int(tokenizer.mask_token_id)

    def hidden(example: Example, draw: np.random.Generator) -> Example:
        plain = np.where(example.target >= 0, example.target, example.ids)
        places = np.flatnonzero(~np.isin(plain, special))
        if not len(places):
            return replace(example, target=np.full(len(plain), IGNORED))
        count = max(1, round(probability * len(places)))
        chosen = draw.choice(places, size=count, replace=False)
        ids, target = plain.astype(np.int32), np.full(len(plain), IGNORED)
        target[chosen] = plain[chosen]
        kind = draw.random(count)
        ids[chosen[kind < 0.8]] = mask_id
        others = chosen[(kind >= 0.8) & (kind < 0.9)]
        ids[others] = draw.choice(usual, size=len(others))
        return replace(example, ids=ids, target=target)

    def encode(rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        texts = [row["text"] for row in rows]
        found = encode_texts(tokenizer, texts, max_length=max_length, truncation=truncation)
        examples = []
        for one in found:
            example = Example(one.ids, np.full(len(one.ids), IGNORED), over=one.over)
            if (one.ids == mask_id).any():
                example.target[one.ids == mask_id] = UNKNOWN
            else:
                example = hidden(example, _by_content(one.ids))
            if (example.target != IGNORED).any():
                examples.append(example)
        return examples

    return Objective(
        metric=pseudo_perplexity(),
        encode=encode,
        count=lambda example: int((example.target >= 0).sum()),
        collate=functools.partial(
            collate_text, pad_token_id=tokenizer.pad_token_id, token_targets=True
        ),
        terms=no_terms,
        losses=lambda logits, batch, terms: _losses(logits, batch),
        redraw=hidden,
        drops_rows=True,
    )


def _by_content(ids: np.ndarray) -> np.random.Generator:
    """The same masks for the same text, whoever has it."""
    digest = hashlib.blake2b(ids.astype("<i4").tobytes(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def _losses(logits: Tensor, batch: Batch) -> Tensor:
    """−log p of each row's masked tokens, added up [N]."""
    rows, places = (batch.target >= 0).nonzero(as_tuple=True)
    # The rest of [N, T, vocabulary] is not needed, and in bfloat16 a sum has three digits.
    chosen = logits[rows, places]
    exact = chosen.to(torch.promote_types(logits.dtype, torch.float32))
    found = cross_entropy(exact, batch.target[rows, places], reduction="none")
    return found.new_zeros(batch.target.shape).index_put((rows, places), found).sum(1)


def pseudo_perplexity() -> Metric:
    """exp of the mean −log p of masked tokens, and the share of them that is the most probable."""

    def evidence(logits: Tensor, batch: Batch) -> Tensor:
        right = ((logits.argmax(-1) == batch.target) & (batch.target >= 0)).sum(1)
        return torch.stack([_losses(logits, batch).double(), right.double()], dim=1)

    def finals(sums: Sequence[float], count: float) -> Mapping[str, float]:
        return {
            "pseudo_perplexity": math.exp(min(sums[0] / count, 700.0)),
            "masked_accuracy": sums[1] / count,
        }

    return Metric("pseudo_perplexity", False, evidence, finals, unsettled, column_sums, 2)
