"""Image classification: one label an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from atoll.config import Experiment
from atoll.data import FederatedData, Row, RowKind
from atoll.data.images import open_image
from atoll.models.base import Base
from atoll.models.classification import label_of
from atoll.models.images import pixels_of
from atoll.models.objective import Objective
from atoll.models.vision import image_classification, load_vision
from atoll.tasks.classification import most_probable
from atoll.tasks.kind import Task, Usage, labels_of, one_class_each, source_of, usual_kind
from atoll.tasks.pictures import image_lines, processor_file
from atoll.tasks.skew import skew_terms
from atoll.tasks.text import num_labels

__all__ = ["IMAGE_CLASSIFICATION"]


def _base(experiment: Experiment, data: FederatedData) -> Base:
    usual_kind(experiment, data, ("image/label",))
    labels, model = one_class_each(experiment, data, label_of), experiment.model
    return load_vision(
        source_of(experiment),
        num_labels=len(labels),
        dtype=model.dtype,
        attention=model.attn_implementation,
        seed=experiment.seed,
    )


def _objective(experiment: Experiment, base: Base, data: FederatedData) -> Objective:
    labels = labels_of(experiment, data)
    assert base.processor is not None, "a model that reads images has a processor"
    return image_classification(
        pixels_of(base.processor, base.source),
        opened=open_image,
        labels=labels,
        terms=skew_terms(experiment, data, labels),
    )


def _row(labels: Sequence[str] | None) -> tuple[Row, RowKind]:
    assert labels, "a classifier has labels"
    return {"image": np.zeros((8, 8), dtype=np.uint8), "label": labels[0]}, "image/label"


def _usage(experiment: Experiment, base: Base) -> Usage:
    return Usage(
        image_lines(base),
        ["logits = model(**batch).logits"],
        readers=("AutoImageProcessor",),
        options=f"{num_labels(base)}, ignore_mismatched_sizes=True",
    )


IMAGE_CLASSIFICATION = Task(
    _base, _objective, _row, _usage, ("image",), most_probable, processor_file
)
