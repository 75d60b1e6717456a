"""Regression: one number for a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from atoll.config import Experiment
from atoll.data import FederatedData, Row, RowKind
from atoll.data.moments import Moments
from atoll.models.base import Base
from atoll.models.objective import Batch, Objective
from atoll.models.regression import regression
from atoll.tasks.classification import text_head
from atoll.tasks.kind import Reading, Task, Usage, check_length, usual_kind
from atoll.tasks.text import text_usage

__all__ = ["REGRESSION"]


def _base(experiment: Experiment, data: FederatedData) -> Base:
    usual_kind(experiment, data, ("text/label",))
    return text_head(experiment, 1)


def _objective(experiment: Experiment, base: Base, data: FederatedData) -> Objective:
    section, moments = experiment.data, _known(data.moments)
    check_length(section.max_length, base)
    return regression(
        base.tokenizer,
        mean=moments.mean,
        deviation=moments.deviation,
        max_length=section.max_length,
        truncation=section.truncation,
    )


def _known(moments: Moments | None) -> Moments:
    assert moments is not None, "labels of a regression were read as numbers"
    return moments


def _row(labels: Sequence[str] | None) -> tuple[Row, RowKind]:
    return {"text": "a row", "label": 0.0}, "text/label"


def _usage(experiment: Experiment, base: Base) -> Usage:
    """The model gives standardised numbers; atoll.json has what they are multiplied by."""
    plain = text_usage(experiment, base)
    return replace(
        plain,
        inputs=[
            "import json",
            "from pathlib import Path",
            'facts = json.loads(Path("atoll.json").read_text())',
            *plain.inputs,
        ],
        outputs=[*plain.outputs, 'numbers = facts["mean"] + facts["deviation"] * logits[:, 0]'],
    )


def _numbers(outputs: Tensor, batch: Batch, reading: Reading) -> list[dict[str, Any]]:
    moments = _known(reading.moments)
    found = moments.mean + moments.deviation * outputs[:, 0].double()
    return [{"prediction": value} for value in found.tolist()]


REGRESSION = Task(_base, _objective, _row, _usage, ("text",), _numbers)
