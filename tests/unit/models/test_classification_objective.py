"""Classification losses against formulas written out, and padding rows that weigh nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor

from atoll.models.classification import class_terms, classification, label_counts
from atoll.models.objective import Batch, Example, Objective
from tests.support.models import word_pieces

LABELS = ("sea", "land", "sky", "life")
COUNTS = (5, 0, 2, 1)
TARGETS = [label for label, count in enumerate(COUNTS) for _ in range(count)]
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "restricted": {"restricted": True},
    "adjusted": {"logit_adjustment": 1.5},
    "balanced": {"weights": "balanced-per-client"},
    "restricted-balanced": {"restricted": True, "weights": "balanced-per-client"},
    "weighted": {"weights": [0.5, 1.0, 2.0, 4.0]},
    "adjusted-weighted": {"logit_adjustment": 1.5, "weights": [0.5, 1.0, 2.0, 4.0]},
    "adjusted-restricted": {"logit_adjustment": 0.5, "restricted": True},
}


def _objective(**options: Any) -> Objective:
    terms = class_terms(len(LABELS), **options)
    return classification(word_pieces(), labels=LABELS, max_length=8, terms=terms)


def _examples() -> list[Example]:
    return [Example(np.array([2, 7, 3]), np.array([label])) for label in TARGETS]


def _logits(rows: int = len(TARGETS), seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(rows, len(LABELS), generator=draw, dtype=torch.float64)


def _stacked_terms(objective: Objective, rows: int) -> dict[str, Tensor]:
    terms = objective.terms(_examples())
    return {n: v.unsqueeze(0).repeat_interleave(rows, 0) for n, v in terms.items()}


def _expected(logits: list[float], label: int, options: dict[str, Any]) -> float:
    total = sum(COUNTS)
    present = [c for c, count in enumerate(COUNTS) if count]
    tau = options.get("logit_adjustment", 0.0)
    if tau:
        shifted = {c: logits[c] + tau * math.log(COUNTS[c] / total) for c in present}
    elif options.get("restricted"):
        shifted = {c: logits[c] for c in present}
    else:
        shifted = dict(enumerate(logits))
    loss = math.log(sum(math.exp(z) for z in shifted.values())) - shifted[label]
    weights = options.get("weights")
    if weights == "balanced-per-client":
        loss *= total / (len(present) * COUNTS[label])
    elif weights:
        loss *= weights[label]
    return loss


@pytest.mark.parametrize("name", OPTIONS)
def test_losses_are_the_formulas(name: str) -> None:
    objective, logits = _objective(**OPTIONS[name]), _logits()
    batch = objective.collate(_examples())
    losses = objective.losses(logits, batch, _stacked_terms(objective, len(TARGETS)))
    for row, label in enumerate(TARGETS):
        expected = _expected(logits[row].tolist(), label, OPTIONS[name])
        assert losses[row].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", OPTIONS)
def test_padding_rows_have_no_loss_and_no_gradient(name: str) -> None:
    objective = _objective(**OPTIONS[name])
    examples = [*_examples()[:2], None, None]
    batch = objective.collate(examples)
    logits = _logits(4).requires_grad_()
    losses = objective.losses(logits, batch, _stacked_terms(objective, 4))
    assert losses[2:].tolist() == [0.0, 0.0]
    losses.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[2:].any()
    assert logits.grad[:2].any(dim=1).all()
    # And the real rows do not see them.
    alone = _logits(4)[:2].requires_grad_()
    real = objective.losses(alone, objective.collate(examples[:2]), _stacked_terms(objective, 2))
    real.sum().backward()
    assert torch.equal(real, losses[:2])
    assert torch.equal(alone.grad, logits.grad[:2])


def test_absent_labels_get_no_gradient_when_restricted() -> None:
    objective, logits = _objective(restricted=True), _logits().requires_grad_()
    batch = objective.collate(_examples())
    objective.losses(logits, batch, _stacked_terms(objective, len(TARGETS))).sum().backward()
    assert not logits.grad[:, 1].any()
    assert logits.grad[:, [0, 2, 3]].any(dim=1).all()


def test_balanced_classes_weigh_the_same() -> None:
    objective = _objective(weights="balanced-per-client")
    terms = _stacked_terms(objective, len(TARGETS))
    losses = objective.losses(
        torch.zeros(len(TARGETS), 4), objective.collate(_examples()), terms
    ) / math.log(4)  # fmt: skip
    by_class = [sum(losses[i].item() for i, t in enumerate(TARGETS) if t == c) for c in (0, 2, 3)]
    assert by_class == pytest.approx([8 / 3] * 3, rel=1e-6)


def test_no_terms_when_nothing_is_asked() -> None:
    assert _objective().terms(_examples()) == {}
    assert _objective().count(_examples()[0]) == 1


def test_label_counts() -> None:
    assert label_counts(_examples(), 4).tolist() == list(COUNTS)
    assert label_counts([], 4).tolist() == [0, 0, 0, 0]


def test_encoding() -> None:
    objective = _objective()
    rows = [
        {"text": "reef tide", "label": "sky"},
        {"text": "sun " * 20, "label": "sea"},
        {"text": "moon"},
    ]
    first, long, unknown = objective.encode(rows)
    vocabulary = word_pieces().get_vocab()
    assert first.ids.tolist() == [2, vocabulary["reef"], vocabulary["tide"], 3]
    assert first.target.tolist() == [2]
    assert long.ids.tolist() == [2, *[vocabulary["sun"]] * 6, 3]
    assert unknown.target.tolist() == [-100]
    assert objective.encode([]) == []


def test_collation_pads_on_the_right() -> None:
    objective = _objective()
    examples = objective.encode(
        [{"text": "reef tide coral", "label": "sea"}, {"text": "sun", "label": "sky"}]
    )
    batch = objective.collate([examples[1], None, examples[0]])
    assert batch.inputs["input_ids"].tolist()[0] == [*examples[1].ids.tolist(), 0, 0]
    assert batch.inputs["attention_mask"].tolist() == [
        [1, 1, 1, 0, 0],
        [1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1],
    ]
    assert batch.target.tolist() == [[2], [-100], [0]]


def test_the_metric_is_scikit_learns() -> None:
    metric = _objective().metric
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 4, generator=draw)
    logits[:, 3] -= 9  # a class that is never predicted
    target = torch.randint(0, 3, (40, 1), generator=draw)  # nor ever right
    scores = metric.settle(metric.evidence(logits, Batch({}, target)))
    sums = metric.total(scores)
    assert len(sums) == metric.width
    found, given = logits.argmax(1), target[:, 0]
    expected = {
        "accuracy": accuracy_score(given, found),
        "macro_f1": f1_score(given, found, average="macro"),
    }
    assert dict(metric.finals(sums.tolist(), 40.0)) == pytest.approx(expected)
    halves = metric.total(scores[:15]) + metric.total(scores[15:])
    assert torch.equal(halves, sums), "sums of two sets do not add up"
    assert (metric.name, metric.higher_is_better) == ("accuracy", True)


def test_padding_rows_are_not_scored() -> None:
    metric = _objective().metric
    batch = Batch({}, torch.tensor([[1], [2], [-100]]))
    logits = torch.tensor([[0.0, 1, 0, 0], [5, 0, 1, 0], [9, 0, 0, 0]])
    sums = metric.total(metric.evidence(logits, batch))
    assert sums[0] == 1.0
    assert sums[1:5].tolist() == [0.0, 1.0, 1.0, 0.0]
