"""Masked language modelling against BERT's rules, and losses against transformers' own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForMaskedLM

from atoll.models.encode import UNKNOWN
from atoll.models.masked import masked
from atoll.models.objective import Example, Objective
from tests.support.models import WORDS, Zoo, word_pieces
from tests.support.text_tasks import byte_pairs

MASK, SPECIAL = 4, {0, 1, 2, 3, 4}


def _objective(**options: Any) -> Objective:
    return masked(word_pieces(), **{"max_length": 32, **options})


def _text(count: int, seed: int = 0) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, size=count))


def _whole(example: Example) -> list[int]:
    return np.where(example.target >= 0, example.target, example.ids).tolist()


@given(count=st.integers(1, 30), share=st.floats(0.01, 0.9), seed=st.integers(0, 99))
def test_so_many_tokens_are_predicted_and_the_row_can_be_read_back(
    count: int, share: float, seed: int
) -> None:
    objective, text = _objective(probability=share, max_length=64), _text(count, seed)
    (example,) = objective.encode([{"text": text}])
    assert objective.redraw is not None
    again = objective.redraw(example, np.random.default_rng(seed))
    for one in (example, again):
        assert objective.count(one) == (one.target >= 0).sum() == max(1, round(share * count))
        assert _whole(one) == word_pieces()(text)["input_ids"]
        assert one.target[0] == one.target[-1] == -100


def test_eight_in_ten_are_masked_and_one_in_ten_is_another_token() -> None:
    objective = _objective(probability=0.5)
    (example,) = objective.encode([{"text": _text(30)}])
    assert objective.redraw is not None
    kinds = {"mask": 0, "same": 0, "other": 0}
    places = np.zeros(len(example))
    for seed in range(400):
        one = objective.redraw(example, np.random.default_rng(seed))
        chosen = one.target >= 0
        places += chosen
        assert not SPECIAL.intersection(one.ids[chosen]) - {MASK}, "a special token was drawn"
        kinds["mask"] += int((one.ids[chosen] == MASK).sum())
        kinds["same"] += int((one.ids[chosen] == one.target[chosen]).sum())
        kinds["other"] += int(
            ((one.ids[chosen] != MASK) & (one.ids[chosen] != one.target[chosen])).sum()
        )
    total = 400 * 15
    # A random token is the right one in 1 of 30 draws. Five deviations of a binomial.
    expected = {"mask": 0.8, "same": 0.1 + 0.1 / 30, "other": 0.1 * 29 / 30}
    for kind, share in expected.items():
        wide = 5 * math.sqrt(share * (1 - share) / total)
        assert abs(kinds[kind] / total - share) < wide, kind
    assert (abs(places[1:-1] / 400 - 0.5) < 5 * 0.5 / 20).all(), "some place is drawn more often"


def test_an_evaluation_masks_by_the_text_alone() -> None:
    objective = _objective()
    rows = [{"text": _text(20, seed), "label": "x"} for seed in range(6)]
    first, again = objective.encode(rows), objective.encode(rows[::-1])[::-1]
    for a, b in zip(first, again, strict=True):
        assert a.ids.tolist() == b.ids.tolist()
        assert a.target.tolist() == b.target.tolist()
    places = {tuple(np.flatnonzero(a.target >= 0)) for a in first}
    assert len(places) > 1, "all texts are masked at the same places"


def test_unknown_words_and_special_tokens_are_never_masked() -> None:
    objective = _objective(probability=0.9)
    assert objective.encode([{"text": "quux"}, {"text": ""}, {"text": "[SEP]"}]) == []
    assert objective.drops_rows
    (example,) = objective.encode([{"text": "quux reef [SEP] tide"}])
    assert np.flatnonzero(example.target >= 0).tolist() == [2, 4]


@pytest.mark.parametrize("tokenizer", [word_pieces(), byte_pairs()], ids=["words", "pairs"])
def test_a_text_with_masks_is_to_be_filled_in(tokenizer: Any) -> None:
    objective = masked(tokenizer, max_length=40)
    mask = tokenizer.mask_token
    (example,) = objective.encode([{"text": f"reef {mask} tide sun moon {mask}"}])
    at = example.ids == tokenizer.mask_token_id
    assert at.sum() == 2
    assert (example.target[at] == UNKNOWN).all()
    assert (example.target[~at] == -100).all()
    assert objective.count(example) == 0
    # In training its other words are masked, and those masks stay as they are.
    assert objective.redraw is not None
    drawn = objective.redraw(example, np.random.default_rng(0))
    words = len(example) - 2 - sum(int(i) in tokenizer.all_special_ids for i in example.ids[1:-1])
    assert objective.count(drawn) == max(1, round(0.15 * words))
    assert (drawn.ids[at] == tokenizer.mask_token_id).all()
    assert (drawn.target[at] == -100).all()


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_losses_are_those_of_transformers(zoo: Zoo, kind: str) -> None:
    model = AutoModelForMaskedLM.from_pretrained(zoo(kind), dtype=torch.float64).eval()
    objective = _objective(probability=0.4)
    examples = objective.encode([{"text": _text(n, n)} for n in (3, 12, 7)])
    batch = objective.collate([*examples, None])
    with torch.no_grad():
        found = model(**batch.inputs, labels=batch.target)
        losses = objective.losses(found.logits, batch, {})
    assert losses[3] == 0.0
    count = sum(map(objective.count, examples))
    assert losses.sum().item() / count == pytest.approx(found.loss.item(), rel=1e-6)


def test_padding_rows_have_no_loss_and_no_gradient() -> None:
    objective = _objective()
    examples = objective.encode([{"text": _text(4)}, {"text": _text(9)}])
    batch = objective.collate([examples[0], None, examples[1], None])
    logits = torch.randn(4, 11, 35, dtype=torch.float64).requires_grad_()
    losses = objective.losses(logits, batch, {})
    losses.sum().backward()
    assert logits.grad is not None
    assert losses[[1, 3]].tolist() == [0.0, 0.0]
    assert not logits.grad[[1, 3]].any()
    assert logits.grad[[0, 2]].any(-1).sum().item() == sum(map(objective.count, examples))
    empty = objective.losses(logits[:1], objective.collate([None]), {})
    assert empty.tolist() == [0.0]


def test_the_metric_is_the_formula() -> None:
    objective = _objective(probability=0.5)
    examples = objective.encode([{"text": _text(n, n)} for n in (2, 9, 5)])
    batch = objective.collate(examples)
    logits = torch.randn(3, 11, 35, generator=torch.Generator().manual_seed(1))
    logits.scatter_(2, batch.target.clamp(min=0)[:, :6].unsqueeze(2), 4.0)
    metric = objective.metric
    sums = metric.total(metric.settle(metric.evidence(logits, batch)))
    chances = logits.double().log_softmax(-1)
    found = [
        (chances[row, place, token].item(), int(logits[row, place].argmax()) == token)
        for row, target in enumerate(batch.target.tolist())
        for place, token in enumerate(target)
        if token >= 0
    ]
    finals = metric.finals(sums.tolist(), float(len(found)))
    assert len(found) == sum(map(objective.count, examples))
    assert dict(finals) == pytest.approx(
        {
            "pseudo_perplexity": math.exp(-sum(p for p, _ in found) / len(found)),
            "masked_accuracy": sum(right for _, right in found) / len(found),
        },
        rel=1e-5,
    )
    assert 0 < finals["masked_accuracy"] < 1
    assert (metric.name, metric.higher_is_better) == ("pseudo_perplexity", False)
    assert len(sums) == metric.width
