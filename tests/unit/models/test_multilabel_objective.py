"""Several labels a row: losses against transformers', metrics against scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from transformers import AutoModelForSequenceClassification

from atoll.models.multilabel import label_sets, multi_label
from atoll.models.objective import Batch, Objective
from tests.support.models import Zoo, word_pieces
from tests.support.text_tasks import TOPICS, topic_rows

LABELS = tuple(sorted(TOPICS))
ROWS = topic_rows({"ada": 7})["ada"]


def _objective(**options: Any) -> Objective:
    return multi_label(word_pieces(), **{"labels": LABELS, "max_length": 32, **options})


def test_a_row_has_any_number_of_labels() -> None:
    rows = [{"text": "reef", "label": label} for label in (["sky", "life"], [], "sea", ["sea"] * 2)]
    examples = _objective().encode([*rows, {"text": "reef"}])
    assert [example.target.tolist() for example in examples[:4]] == [
        [[1.0, 0.0, 1.0]], [[0.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]], [[0.0, 1.0, 0.0]],
    ]  # fmt: skip
    assert np.isnan(examples[4].target).all()
    # A row of as many tokens as there are labels keeps all of them when it is cut.
    assert len(examples[0].ids) == len(LABELS)
    assert examples[0].cut(2).target.shape == (1, 3)


def test_losses_are_those_of_transformers(zoo: Zoo) -> None:
    options = {"num_labels": 3, "dtype": torch.float64,
               "problem_type": "multi_label_classification"}  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(zoo("bert"), **options).eval()
    objective = _objective()
    batch = objective.collate(objective.encode(ROWS))
    with torch.no_grad():
        found = model(**batch.inputs, labels=batch.target.double())
    losses = objective.losses(found.logits, batch, {})
    assert losses.mean().item() == pytest.approx(found.loss.item(), rel=1e-6)


def test_padding_rows_have_no_loss_and_no_gradient() -> None:
    objective = _objective()
    examples = objective.encode(ROWS[:2])
    logits = torch.randn(3, 3, dtype=torch.float64).requires_grad_()
    losses = objective.losses(logits, objective.collate([None, *examples]), {})
    losses.sum().backward()
    assert losses[0] == 0.0
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[0].any()
    assert logits.grad[1:].all()


def _finals(logits: torch.Tensor, given: torch.Tensor) -> tuple[Any, torch.Tensor]:
    metric = label_sets(given.shape[1])
    scores = metric.settle(metric.evidence(logits, Batch({}, given.float())))
    sums = metric.total(scores)
    assert len(sums) == metric.width
    assert torch.equal(metric.total(scores[:9]) + metric.total(scores[9:]), sums)
    return metric.finals(sums.tolist(), float(len(given))), sums


def test_the_metric_is_scikit_learns() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 4, generator=draw)
    given = (torch.rand(40, 4, generator=draw) < 0.4).float()
    given[:5] = (logits[:5] > 0).float()  # some rows are right as a whole
    finals, _ = _finals(logits, given)
    pair = (given.int().numpy(), (logits > 0).int().numpy())
    assert dict(finals) == pytest.approx(
        {
            "micro_f1": f1_score(*pair, average="micro"),
            "macro_f1": f1_score(*pair, average="macro"),
            "subset_accuracy": accuracy_score(*pair),
        }
    )
    metric = label_sets(4)
    assert (metric.name, metric.higher_is_better) == ("micro_f1", True)


def test_nothing_to_find_and_nothing_found_is_right() -> None:
    finals, _ = _finals(torch.full((12, 2), -1.0), torch.zeros(12, 2))
    assert finals["micro_f1"] == finals["subset_accuracy"] == 1.0
    finals, _ = _finals(torch.full((12, 2), 1.0), torch.zeros(12, 2))
    assert finals["micro_f1"] == finals["subset_accuracy"] == 0.0
