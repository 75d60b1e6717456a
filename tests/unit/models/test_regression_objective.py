"""Regression losses against transformers', metrics against scikit-learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from transformers import AutoModelForSequenceClassification

from atoll.errors import DataError
from atoll.models.objective import Objective
from atoll.models.regression import regression
from tests.support.models import Zoo, word_pieces
from tests.support.text_tasks import number_rows

ROWS = number_rows({"ada": 6})["ada"]
MEAN, DEVIATION = 1200.0, 400.0


def _objective(**options: Any) -> Objective:
    scale = {"mean": MEAN, "deviation": DEVIATION, "max_length": 32}
    return regression(word_pieces(), **{**scale, **options})


def test_labels_are_standardised() -> None:
    rows = [{"text": "reef", "label": label} for label in (1200.0, 1600, "800")]
    examples = _objective().encode([*rows, {"text": "tide"}])
    assert [example.target.tolist() for example in examples[:3]] == [[[0.0]], [[1.0]], [[-1.0]]]
    assert np.isnan(examples[3].target).all()
    # The target of one row is not cut, even where it is as long as the row.
    assert examples[0].cut(1).target.shape == (1, 1)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ([1.0, 2.0], r"a label is a list \(1.0, 2.0\), and a regression predicts one number"),
        (math.inf, "a label is inf; write a finite number"),
    ],
)
def test_labels_that_are_no_numbers(label: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _objective().encode([{"text": "reef", "label": label}])


def test_losses_are_those_of_transformers(zoo: Zoo) -> None:
    options = {"num_labels": 1, "dtype": torch.float64}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(zoo("bert"), **options).eval()
    objective = _objective()
    batch = objective.collate(objective.encode(ROWS))
    with torch.no_grad():
        found = model(**batch.inputs, labels=batch.target.double())
    assert model.config.problem_type == "regression"
    losses = objective.losses(found.logits, batch, {})
    assert losses.mean().item() == pytest.approx(found.loss.item(), rel=1e-6)
    plain = [(out - (row["label"] - MEAN) / DEVIATION) ** 2
             for out, row in zip(found.logits[:, 0].tolist(), ROWS, strict=True)]  # fmt: skip
    assert losses.tolist() == pytest.approx(plain, rel=1e-5)


def test_padding_rows_have_no_loss_and_no_gradient() -> None:
    objective = _objective()
    examples = objective.encode(ROWS[:2])
    outputs = torch.randn(4, 1, dtype=torch.float64).requires_grad_()
    batch = objective.collate([examples[0], None, examples[1], None])
    losses = objective.losses(outputs, batch, {})
    losses.sum().backward()
    assert losses[[1, 3]].tolist() == [0.0, 0.0]
    assert outputs.grad is not None
    assert torch.isfinite(outputs.grad).all()
    assert not outputs.grad[[1, 3]].any()
    assert outputs.grad[[0, 2]].all()
    bare = objective.collate([None])
    assert objective.losses(outputs[:1], bare, {}).tolist() == [0.0]


def test_the_metric_is_scikit_learns() -> None:
    objective = _objective()
    metric, rows = objective.metric, number_rows({"ada": 40})["ada"]
    batch = objective.collate(objective.encode(rows))
    outputs = torch.randn(40, 1, generator=torch.Generator().manual_seed(0))
    scores = metric.settle(metric.evidence(outputs, batch))
    sums = metric.total(scores)
    given = [row["label"] for row in rows]
    said = (MEAN + DEVIATION * outputs[:, 0].double()).tolist()
    assert dict(metric.finals(sums.tolist(), 40.0)) == pytest.approx(
        {
            "rmse": root_mean_squared_error(given, said),
            "mae": mean_absolute_error(given, said),
            "r2": r2_score(given, said),
        },
        rel=1e-5,
    )
    assert len(sums) == metric.width
    halves = metric.total(scores[:15]) + metric.total(scores[15:])
    assert halves.tolist() == pytest.approx(sums.tolist())
    assert (metric.name, metric.higher_is_better) == ("rmse", False)


def test_equal_labels_have_no_r2_and_a_diverged_model_no_error() -> None:
    objective = _objective()
    batch = objective.collate(objective.encode([{"text": "reef", "label": 7.0}] * 3))
    metric = objective.metric
    sums = metric.total(metric.evidence(torch.zeros(3, 1), batch)).tolist()
    assert math.isnan(metric.finals(sums, 3.0)["r2"])
    sums = metric.total(metric.evidence(torch.full((3, 1), torch.nan), batch)).tolist()
    assert math.isnan(metric.finals(sums, 3.0)["rmse"])
