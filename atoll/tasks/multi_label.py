"""Multi-label classification: any number of labels for a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from atoll.config import Experiment
from atoll.data import FederatedData, Row, RowKind
from atoll.errors import DataError
from atoll.models.base import Base
from atoll.models.multilabel import multi_label
from atoll.models.objective import Batch, Objective
from atoll.tasks.classification import text_head
from atoll.tasks.kind import Reading, Task, check_length, labels_of, usual_kind
from atoll.tasks.text import ranked_labels, text_usage

__all__ = ["MULTI_LABEL"]


def _base(experiment: Experiment, data: FederatedData) -> Base:
    usual_kind(experiment, data, ("text/label",))
    if data.labels is None and not any(
        row["label"] for client in data.clients for row in data.rows(client, "train")
    ):
        raise DataError(f"{experiment.data.path}: no training row of any client has a label")
    return text_head(experiment, len(labels_of(experiment, data)))


def _objective(experiment: Experiment, base: Base, data: FederatedData) -> Objective:
    section = experiment.data
    check_length(section.max_length, base)
    return multi_label(
        base.tokenizer,
        labels=labels_of(experiment, data),
        max_length=section.max_length,
        truncation=section.truncation,
    )


def _row(labels: Sequence[str] | None) -> tuple[Row, RowKind]:
    assert labels, "a classifier has labels"
    return {"text": "a row", "label": [labels[0]]}, "text/label"


def _above_half(logits: Tensor, batch: Batch, reading: Reading) -> list[dict[str, Any]]:
    """The labels of each row that are more probable than not, and the most probable ones."""
    return [
        {
            "prediction": [
                name for name, share in zip(reading.labels, shares, strict=True) if share > 0.5
            ],
            "probabilities": ranked_labels(shares, reading),
        }
        for shares in logits.double().sigmoid().tolist()
    ]


MULTI_LABEL = Task(_base, _objective, _row, text_usage, ("text",), _above_half)
