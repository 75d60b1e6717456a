"""Regression: one number a row, squared error.

Labels are standardised by the mean and deviation of all clients' training labels, which follow
from sums over clients: a head that trains by gradient then takes steps of the right size, whatever
the labels' unit. The model gives standardised numbers, y = mean + deviation · output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from atoll.errors import DataError
from atoll.models.encode import encode_texts
from atoll.models.numbers import number_collation, row_means
from atoll.models.objective import (
    Batch,
    Example,
    Metric,
    Objective,
    column_sums,
    no_terms,
    unsettled,
)
from atoll.tree import Tree

__all__ = ["regression", "squared_error"]


def regression(
    tokenizer: Any, *, mean: float, deviation: float, max_length: int, truncation: bool = True
) -> Objective:
    """Mean squared error of standardised labels, which are numbers or are written as numbers."""

    def encode(rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        texts = [row["text"] for row in rows]
        found = encode_texts(tokenizer, texts, max_length=max_length, truncation=truncation)
        labels = [_number(row["label"]) if "label" in row else math.nan for row in rows]
        return [
            Example(one.ids, np.asarray([[(label - mean) / deviation]]), over=one.over)
            for one, label in zip(found, labels, strict=True)
        ]

    return Objective(
        metric=squared_error(deviation),
        encode=encode,
        count=lambda example: 1,
        collate=number_collation(tokenizer, 1),
        terms=no_terms,
        losses=_losses,
        real=(1.0, 0.0),
    )


def _number(label: Any) -> float:
    if isinstance(label, list):
        raise DataError(
            f"a label is a list ({', '.join(map(str, label[:5]))}), and a regression predicts one "
            "number for each row; write one number as the label"
        )
    if not math.isfinite(found := float(label)):
        raise DataError(f"a label is {label}; write a finite number, or remove the row")
    return found


def _losses(outputs: Tensor, batch: Batch, terms: Tree) -> Tensor:
    return row_means(lambda x, y: mse_loss(x, y, reduction="none"), outputs, batch.target)


def squared_error(deviation: float) -> Metric:
    """Root mean squared error and mean absolute error in the labels' unit, and R².

    R² is 1 − Σ e² / Σ (y − ȳ)² on the rows that are measured; not a number where all y are equal.
    Sums: of e², |e|, y and y².
    """

    def evidence(outputs: Tensor, batch: Batch) -> Tensor:
        given = batch.target.double()
        apart = outputs.double() - given
        columns = torch.cat([apart.square(), apart.abs(), given, given.square()], dim=1)
        return columns.masked_fill(given.isnan(), 0.0)

    def finals(sums: Sequence[float], count: float) -> Mapping[str, float]:
        spread = sums[3] - sums[2] ** 2 / count
        return {
            "rmse": deviation * math.sqrt(sums[0] / count),
            "mae": deviation * sums[1] / count,
            "r2": 1 - sums[0] / spread if spread > 1e-9 * sums[3] else math.nan,
        }

    return Metric("rmse", False, evidence, finals, unsettled, column_sums, 4)
