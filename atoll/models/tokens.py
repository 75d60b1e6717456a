"""Token classification: a tag for each word of a row.

A word's first token carries its tag, as in Devlin et al. 2019, section 5.3; its other tokens, and
special ones, carry none.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from atoll.models.collate import IGNORED, collate_text
from atoll.models.encode import UNKNOWN, Encoded, encode_words
from atoll.models.objective import Batch, Example, Objective, no_terms
from atoll.models.spans import tag_metric
from atoll.tree import Tree

__all__ = ["tagging", "words_of"]


def tagging(
    tokenizer: Any,
    *,
    tags: Sequence[str],
    max_length: int,
    truncation: bool = True,
    terms: Callable[[Sequence[Example]], Tree] = no_terms,
) -> Objective:
    """Cross-entropy of each word's tag; `terms` may weigh tags, as those of `class_terms`.

    Rows have `tokens` and `tags`; without tags, or with a `text` to be split at white space, they
    are rows to predict for. Rows without a word are left out.
    """
    index = {tag: i for i, tag in enumerate(tags)}

    def encode(rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        words = [words_of(row) for row in rows]
        found = encode_words(tokenizer, words, max_length=max_length, truncation=truncation)
        examples = []
        for row, one in zip(rows, found, strict=True):
            given = row.get("tags")
            known = None if given is None else [index[str(tag)] for tag in given]
            example = Example(one.ids, _targets(one, known), over=one.over)
            if (example.target != IGNORED).any():
                examples.append(example)
        return examples

    return Objective(
        metric=tag_metric(tags),
        encode=encode,
        count=lambda example: int((example.target >= 0).sum()),
        collate=functools.partial(
            collate_text, pad_token_id=tokenizer.pad_token_id, token_targets=True
        ),
        terms=terms,
        losses=_losses,
        drops_rows=True,
    )


def words_of(row: Mapping[str, Any]) -> list[str]:
    """A row's words: its tokens, or its text split at white space."""
    words: list[str] = row["tokens"] if row.get("tokens") is not None else row["text"].split()
    return words


def _targets(one: Encoded, known: Sequence[int] | None) -> np.ndarray:
    """[T]: at the first token of each word its tag, or UNKNOWN."""
    assert one.words is not None, "words were encoded"
    target = np.full(len(one.ids), IGNORED)
    before = None
    for place, word in enumerate(one.words):
        if word is not None and word != before:
            target[place] = UNKNOWN if known is None else known[word]
        before = word
    return target


def _losses(logits: Tensor, batch: Batch, terms: Tree) -> Tensor:
    """The losses of each row's words, added up [N]."""
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32)).transpose(1, 2)
    losses = cross_entropy(exact, batch.target, reduction="none", ignore_index=IGNORED)
    if "weight" in terms:
        chosen = terms["weight"].gather(1, batch.target.clamp(min=0))
        losses = losses * chosen.to(losses.dtype)
    return losses.sum(1)
