"""Classification: one label a row, cross-entropy, and the terms that counter label skew."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from atoll.errors import DataError
from atoll.models.collate import IGNORED, collate_text
from atoll.models.encode import encode_texts
from atoll.models.metrics import accuracy
from atoll.models.objective import Batch, Example, Objective, no_terms
from atoll.tree import Tree

__all__ = ["Weights", "class_losses", "class_terms", "classification", "label_counts", "label_of"]

Weights = Literal["balanced-per-client"] | Sequence[float] | None
"""How classes weigh in a loss."""


def classification(
    tokenizer: Any,
    *,
    labels: Sequence[str],
    max_length: int,
    truncation: bool = True,
    terms: Callable[[Sequence[Example]], Tree] = no_terms,
) -> Objective:
    """Cross-entropy over `labels` of texts; `terms` as of `class_terms`."""
    index = {label: i for i, label in enumerate(labels)}

    def encode(rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        known = [index[label_of(row)] if "label" in row else IGNORED for row in rows]
        texts = [row["text"] for row in rows]
        found = encode_texts(tokenizer, texts, max_length=max_length, truncation=truncation)
        return [
            Example(one.ids, np.asarray([label]), over=one.over)
            for one, label in zip(found, known, strict=True)
        ]

    return Objective(
        metric=accuracy(len(labels)),
        encode=encode,
        count=lambda example: 1,
        collate=functools.partial(
            collate_text, pad_token_id=tokenizer.pad_token_id, token_targets=False
        ),
        terms=terms,
        losses=class_losses,
    )


def class_terms(
    num_labels: int,
    *,
    restricted: bool = False,
    logit_adjustment: float = 0.0,
    weights: Weights = None,
) -> Callable[[Sequence[Example]], Tree]:
    """A client's terms against label skew.

    restricted: only the classes that the client has count (FedRS with α = 0, Li and Zhan 2021).
    logit_adjustment: τ·log(prior of the client) is added to the logits in training (Menon et al.
        2021, arXiv 2007.07314, eq. 10; per client as in FedLC, Zhang et al. 2022).
    weights: what the loss of a row is multiplied by, for each class; balanced-per-client: each
        class of a client weighs the same in its loss.
    """

    def terms(examples: Sequence[Example]) -> Tree:
        counts = label_counts(examples, num_labels)
        held: Tree = {}
        if logit_adjustment:
            held["bias"] = logit_adjustment * (counts / counts.sum()).log()
        elif restricted:
            held["bias"] = torch.where(counts > 0, 0.0, -torch.inf)
        if weights is not None:
            held["weight"] = _balance(counts) if isinstance(weights, str) else torch.tensor(weights)
        return held

    return terms


def label_of(row: Mapping[str, Any]) -> str:
    """The one label of a row.

    Raises:
        DataError: for a list of labels.
    """
    label = row["label"]
    if isinstance(label, list):
        raise DataError(
            f"a label is a list ({', '.join(map(str, label[:5]))}), and task classification gives "
            "each row one class; write one name or whole number as the label of each row"
        )
    return str(label)


def _balance(counts: Tensor) -> Tensor:
    """A weight for each class with which all that have rows weigh the same."""
    present = (counts > 0).sum()
    return torch.where(counts > 0, counts.sum() / (present * counts), 0.0)


def label_counts(examples: Sequence[Example], num_labels: int) -> Tensor:
    """How many rows, or tokens, each label has, [labels]."""
    targets = [np.zeros(0, dtype=np.int64), *(example.target for example in examples)]
    known = np.concatenate(targets)
    return torch.from_numpy(np.bincount(known[known >= 0], minlength=num_labels)).float()


def class_losses(logits: Tensor, batch: Batch, terms: Tree) -> Tensor:
    """Cross-entropy of each row under a client's terms; a padding row adds nothing."""
    target = batch.target[:, 0]
    if "bias" in terms:
        # A padding row has no class of its own; without this its gradient would be NaN, not zero.
        bias = terms["bias"].to(logits.dtype)
        logits = logits + torch.where(target.unsqueeze(1) == IGNORED, 0.0, bias)
    losses = cross_entropy(logits, target, reduction="none", ignore_index=IGNORED)
    if "weight" in terms:
        chosen = terms["weight"].gather(1, target.clamp(min=0).unsqueeze(1)).squeeze(1)
        losses = losses * chosen.to(losses.dtype)
    return losses
