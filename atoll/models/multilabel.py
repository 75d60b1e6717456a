"""Multi-label classification: any number of labels a row, binary cross-entropy of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from atoll.models.encode import encode_texts
from atoll.models.metrics import f1_scores
from atoll.models.numbers import number_collation, row_means
from atoll.models.objective import Batch, Example, Metric, Objective, no_terms, unsettled
from atoll.models.spans import precision_recall_f1
from atoll.tree import Tree

__all__ = ["label_sets", "multi_label"]

SCALE = 10.0
"""Makes a regression of 0 and 1 into logits, as Fed3R's does."""


def multi_label(
    tokenizer: Any, *, labels: Sequence[str], max_length: int, truncation: bool = True
) -> Objective:
    """The mean over labels of binary cross-entropy; a row has a list of labels, or a single one."""
    index = {label: i for i, label in enumerate(labels)}

    def encode(rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        texts = [row["text"] for row in rows]
        found = encode_texts(tokenizer, texts, max_length=max_length, truncation=truncation)
        return [
            Example(one.ids, _chosen(row, index), over=one.over)
            for row, one in zip(rows, found, strict=True)
        ]

    return Objective(
        metric=label_sets(len(labels)),
        encode=encode,
        count=lambda example: 1,
        collate=number_collation(tokenizer, len(labels)),
        terms=no_terms,
        losses=_losses,
        real=(SCALE, 0.5),
    )


def _chosen(row: Mapping[str, Any], index: Mapping[str, int]) -> np.ndarray:
    """[1, C]: 1 for each label that the row has."""
    if "label" not in row:
        return np.full((1, len(index)), math.nan)
    label = row["label"]
    target = np.zeros((1, len(index)))
    for name in label if isinstance(label, list) else [label]:
        target[0, index[str(name)]] = 1.0
    return target


def _losses(logits: Tensor, batch: Batch, terms: Tree) -> Tensor:
    return row_means(
        lambda x, y: binary_cross_entropy_with_logits(x, y, reduction="none"), logits, batch.target
    )


def label_sets(num_labels: int) -> Metric:
    """Micro-F1 and macro-F1 (over labels that were given or predicted), and whole rows right.

    A label is predicted where its logit is above 0. Sums: whole rows right, then for each label the
    rows in which it was given, predicted, and both.
    """

    def evidence(logits: Tensor, batch: Batch) -> Tensor:
        return torch.cat([logits > 0, batch.target > 0], dim=1).to(torch.uint8)

    def total(scores: Tensor) -> Tensor:
        found, given = scores.bool().chunk(2, dim=1)
        counts = [part.sum(0) for part in (given, found, given & found)]
        return torch.cat([(given == found).all(1).sum().view(1), *counts]).double()

    def finals(sums: Sequence[float], count: float) -> Mapping[str, float]:
        parts = [sums[1 + i * num_labels : 1 + (i + 1) * num_labels] for i in range(3)]
        scores = f1_scores(*parts)
        return {
            "micro_f1": precision_recall_f1(*map(sum, parts))[2],
            "macro_f1": sum(scores) / len(scores) if scores else math.nan,
            "subset_accuracy": sums[0] / count,
        }

    return Metric("micro_f1", True, evidence, finals, unsettled, total, 1 + 3 * num_labels)
