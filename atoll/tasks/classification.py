"""Classification: one label a row of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from atoll.config import Experiment
from atoll.data import FederatedData, Row, RowKind
from atoll.models.base import Base, Head, load_base
from atoll.models.classification import classification, label_of
from atoll.models.objective import Batch, Objective
from atoll.tasks.kind import (
    Reading,
    Task,
    check_length,
    labels_of,
    one_class_each,
    source_of,
    usual_kind,
)
from atoll.tasks.skew import skew_terms
from atoll.tasks.text import ranked_labels, text_usage

__all__ = ["CLASSIFICATION", "most_probable", "text_head"]


def _base(experiment: Experiment, data: FederatedData) -> Base:
    usual_kind(experiment, data, ("text/label",))
    return text_head(experiment, len(one_class_each(experiment, data, label_of)))


def text_head(experiment: Experiment, num_labels: int) -> Base:
    """The model with a head of so many outputs on its pooled features."""
    model, adapter = experiment.model, experiment.adapter
    head = Head(
        num_labels=num_labels,
        pooling=model.pooling,
        normalize=model.normalize,
        # A solved head needs features that mean something before any training.
        otherwise=None if adapter.head == "train" else "mean",
        random_features=adapter.head_features,
        seed=experiment.seed,
    )
    return load_base(
        source_of(experiment), dtype=model.dtype, head=head, attention=model.attn_implementation
    )


def _objective(experiment: Experiment, base: Base, data: FederatedData) -> Objective:
    check_length(experiment.data.max_length, base)
    labels, section = labels_of(experiment, data), experiment.data
    return classification(
        base.tokenizer,
        labels=labels,
        max_length=section.max_length,
        truncation=section.truncation,
        terms=skew_terms(experiment, data, labels),
    )


def _row(labels: Sequence[str] | None) -> tuple[Row, RowKind]:
    assert labels, "a classifier has labels"
    return {"text": "a row", "label": labels[0]}, "text/label"


def most_probable(logits: Tensor, batch: Batch, reading: Reading) -> list[dict[str, Any]]:
    """The label of each row, and the probabilities of the most probable ones."""
    found = []
    for share in logits.double().softmax(-1).tolist():
        ranked = ranked_labels(share, reading)
        found.append({"prediction": next(iter(ranked)), "probabilities": ranked})
    return found


CLASSIFICATION = Task(_base, _objective, _row, text_usage, ("text",), most_probable)
