"""Classification: one label a row, cross-entropy, and the terms that counter label skew."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from atoll.errors import DataError
from atoll.models.collate import IGNORED, collate_text
from atoll.models.metrics import accuracy
from atoll.models.objective import Batch, Example, Objective
from atoll.tree import Tree

__all__ = ["classification", "label_counts", "label_of"]


def classification(
    tokenizer: Any,
    *,
    labels: Sequence[str],
    max_length: int,
    restricted: bool = False,
    logit_adjustment: float = 0.0,
    class_balance: bool = False,
) -> Objective:
    """Cross-entropy over `labels`.

    restricted: only over the classes that the client has (FedRS with α = 0, Li and Zhan 2021).
    logit_adjustment: τ·log(prior of the client) is added to the logits in training (Menon et al.
        2021, arXiv 2007.07314, eq. 10; per client as in FedLC, Zhang et al. 2022).
    class_balance: each class of a client weighs the same in its loss.
    """
    index = {label: i for i, label in enumerate(labels)}

    def encode(rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        if not rows:
            return []
        tokens = tokenizer([row["text"] for row in rows], truncation=True, max_length=max_length)
        known = [index[label_of(row)] if "label" in row else IGNORED for row in rows]
        return [
            Example(np.asarray(ids, dtype=np.int32), np.asarray([label]))
            for ids, label in zip(tokens["input_ids"], known, strict=True)
        ]

    def terms(examples: Sequence[Example]) -> Tree:
        counts = label_counts(examples, len(labels))
        held: Tree = {}
        if logit_adjustment:
            held["bias"] = logit_adjustment * (counts / counts.sum()).log()
        elif restricted:
            held["bias"] = torch.where(counts > 0, 0.0, -torch.inf)
        return held | ({"weight": _balance(counts)} if class_balance else {})

    return Objective(
        metric=accuracy(len(labels)),
        encode=encode,
        count=lambda example: 1,
        collate=functools.partial(
            collate_text, pad_token_id=tokenizer.pad_token_id, token_targets=False
        ),
        terms=terms,
        losses=_losses,
    )


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
    """How many rows each label has, [labels]."""
    targets = np.asarray([example.target[0] for example in examples], dtype=np.int64)
    return torch.from_numpy(np.bincount(targets, minlength=num_labels)).float()


def _losses(logits: Tensor, batch: Batch, terms: Tree) -> Tensor:
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
