"""What beside the section about privacy would have clients tell of their rows in the open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from atoll.config.checks import Problem
from atoll.config.privacy import Privacy

if TYPE_CHECKING:
    from atoll.config.sections import Model, Train

__all__ = ["check_open"]


def check_open(privacy: Privacy, *, model: Model | None, train: Train | None) -> Iterator[Problem]:
    """Numbers about all clients' labels, which neither noise nor masks hide."""
    if not privacy.hides:
        return
    if model is not None and model.task == "regression":
        yield Problem(
            "model.task",
            "model.task is regression, which scales labels by the moments of all clients' rows, "
            "and privacy hides those nowhere; cut the numbers into classes",
        )
    if train is not None and train.class_weights == "balanced":
        yield Problem(
            "train.class_weights",
            "train.class_weights is balanced, which counts all clients' labels, and privacy hides "
            "those counts nowhere; give weights by label",
        )
