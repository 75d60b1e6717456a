"""Metrics that several tasks share: accuracy with macro-F1, and perplexity with exact match."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from atoll.models.collate import IGNORED
from atoll.models.objective import Batch, Metric, column_sums, unsettled

__all__ = ["accuracy", "f1_scores", "perplexity", "token_losses"]


def accuracy(num_labels: int) -> Metric:
    """Accuracy and macro-F1 (over classes that were given or predicted) of one label a row.

    Sums: right rows, then for each class the rows given, predicted, and both.
    """

    def evidence(logits: Tensor, batch: Batch) -> Tensor:
        return torch.stack([logits.argmax(-1), batch.target[:, 0]], dim=1)

    def total(scores: Tensor) -> Tensor:
        known = scores[scores[:, 1] != IGNORED].long()
        found, given = known[:, 0], known[:, 1]
        counts = [
            torch.bincount(labels, minlength=num_labels)
            for labels in (given, found, given[found == given])
        ]
        return torch.cat([counts[2].sum().view(1), *counts]).double()

    def finals(sums: Sequence[float], count: float) -> Mapping[str, float]:
        given, found, both = (sums[1 + i * num_labels : 1 + (i + 1) * num_labels] for i in range(3))
        scores = f1_scores(given, found, both)
        return {
            "accuracy": sums[0] / count,
            "macro_f1": sum(scores) / len(scores) if scores else math.nan,
        }

    return Metric("accuracy", True, evidence, finals, unsettled, total, 1 + 3 * num_labels)


def f1_scores(given: Sequence[float], found: Sequence[float], both: Sequence[float]) -> list[float]:
    """F1 of each class that occurs, from how often it was given, found, and both."""
    counts = zip(given, found, both, strict=True)
    return [2 * right / (there + said) for there, said, right in counts if there + said]


def perplexity() -> Metric:
    """Perplexity of predicted tokens, the share of them that is the most probable, exact match.

    A row is an exact match where every predicted token is the most probable one: where greedy
    decoding would write it.
    """

    def evidence(logits: Tensor, batch: Batch) -> Tensor:
        target = batch.target[:, 1:]
        predicted = target != IGNORED
        right = ((logits[:, :-1].argmax(-1) == target) & predicted).sum(1)
        whole = right == predicted.sum(1)
        some = predicted.any(1)
        columns = [token_losses(logits, batch), right, whole & some, some]
        return torch.stack([column.double() for column in columns], dim=1)

    def finals(sums: Sequence[float], count: float) -> Mapping[str, float]:
        return {
            "perplexity": math.exp(min(sums[0] / count, 700.0)),
            "token_accuracy": sums[1] / count,
            "exact_match": sums[2] / sums[3] if sums[3] else math.nan,
        }

    return Metric("perplexity", False, evidence, finals, unsettled, column_sums, 4)


def token_losses(logits: Tensor, batch: Batch) -> Tensor:
    """−log p of each row's next tokens, added up [N]."""
    target = batch.target[:, 1:]
    # In bfloat16 a sum of losses has three digits.
    exact = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32))
    losses = cross_entropy(exact.transpose(1, 2), target, reduction="none", ignore_index=IGNORED)
    return losses.sum(1)
