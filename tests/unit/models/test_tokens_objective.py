"""Tags on the first token of each word, and losses against transformers' own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForTokenClassification

from atoll.models.classification import class_terms
from atoll.models.encode import UNKNOWN
from atoll.models.objective import Objective
from atoll.models.tokens import tagging, words_of
from tests.support.models import Zoo, letters, word_pieces
from tests.support.text_tasks import TAGS, byte_pairs, tagged_rows

ROWS = tagged_rows({"ada": 4})["ada"]


def _objective(tokenizer: Any = None, **options: Any) -> Objective:
    return tagging(tokenizer or word_pieces(), **{"tags": TAGS, "max_length": 32, **options})


def test_a_words_first_token_carries_its_tag() -> None:
    tokens, tags = ["sea", "ab", "reef"], ["B-SEA", "O", "I-SEA"]
    (example,) = _objective(byte_pairs()).encode([{"tokens": tokens, "tags": tags}])
    pieces = byte_pairs().convert_ids_to_tokens(example.ids.tolist())
    assert pieces == ["<s>", "sea", "Ġ", "a", "b", "Ġ", "reef", "</s>"]
    assert example.target.tolist() == [-100, 0, 4, -100, -100, 2, -100, -100]
    (example,) = _objective(letters()).encode([{"tokens": ["ab", "c"], "tags": ["O", "B-SKY"]}])
    assert example.target.tolist() == [4, -100, 1, -100]


def test_words_that_are_cut_off_have_no_prediction() -> None:
    row = {"tokens": ["ab", "cd", "ef"], "tags": ["O", "B-SEA", "O"]}
    (example,) = _objective(letters(), max_length=4).encode([row])
    assert example.target.tolist() == [4, -100, 0, -100]
    assert _objective().count(example) == 2
    assert example.over == (8,)


def test_rows_to_tag_have_no_tags() -> None:
    objective = _objective()
    given = [{"tokens": ["reef", "tide"]}, {"text": " reef  tide\n"}]
    for example in objective.encode(given):
        assert example.target.tolist() == [-100, UNKNOWN, UNKNOWN, -100]
        assert objective.count(example) == 0
    assert words_of({"tokens": ["a b"], "text": "c"}) == ["a b"]
    # A word of which nothing is left, and rows without a word.
    assert objective.encode([{"tokens": ["", " "]}, {"tokens": []}, {"text": " "}]) == []
    (example,) = objective.encode([{"tokens": ["", "reef"], "tags": ["O", "B-SEA"]}])
    assert example.target.tolist() == [-100, 0, -100]
    assert objective.drops_rows


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0, 3.0, 0.25]])
def test_losses_are_those_of_transformers(zoo: Zoo, kind: str, weights: Any) -> None:
    options = {"num_labels": len(TAGS), "dtype": torch.float64}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForTokenClassification.from_pretrained(zoo(kind), **options).eval()
    objective = _objective(terms=class_terms(len(TAGS), weights=weights))
    examples = objective.encode(ROWS)
    batch = objective.collate([*examples, None])
    terms = {
        name: value.unsqueeze(0).repeat(len(batch.target), 1)
        for name, value in objective.terms(examples).items()
    }
    with torch.no_grad():
        found = model(**batch.inputs, labels=batch.target)
        losses = objective.losses(found.logits, batch, terms)
    assert losses[-1] == 0.0
    expected = found.loss * sum(map(objective.count, examples))
    if weights:
        chances = found.logits.log_softmax(-1)
        known = [(r, t, tag) for r, row in enumerate(batch.target.tolist())
                 for t, tag in enumerate(row) if tag >= 0]  # fmt: skip
        expected = -sum(weights[tag] * chances[r, t, tag] for r, t, tag in known)
    assert losses.sum().item() == pytest.approx(expected.item(), rel=1e-6)


def test_padding_rows_have_no_loss_and_no_gradient() -> None:
    objective = _objective()
    examples = objective.encode(ROWS[:2])
    batch = objective.collate([examples[0], None, examples[1]])
    logits = torch.randn(3, batch.target.shape[1], len(TAGS)).requires_grad_()
    losses = objective.losses(logits, batch, {})
    losses.sum().backward()
    assert logits.grad is not None
    assert losses[1] == 0.0
    assert not logits.grad[1].any()
    words = sum(len(row["tokens"]) for row in ROWS[:2])
    assert logits.grad.any(-1).sum().item() == words


def test_balanced_tags_weigh_the_same() -> None:
    terms = class_terms(len(TAGS), weights="balanced-per-client")
    objective = _objective(terms=terms)
    examples = objective.encode(tagged_rows({"ada": 9})["ada"])
    batch = objective.collate(examples)
    weight = terms(examples)["weight"]
    logits = torch.zeros(*batch.target.shape, len(TAGS))
    repeated = {"weight": weight.unsqueeze(0).repeat(len(examples), 1)}
    total = objective.losses(logits, batch, repeated).sum().item()
    counts = [int((batch.target == tag).sum()) for tag in range(len(TAGS))]
    shares = [weight[tag].item() * count for tag, count in enumerate(counts) if count]
    assert shares == pytest.approx([sum(counts) / len(shares)] * len(shares))
    assert total == pytest.approx(sum(counts) * torch.tensor(5.0).log().item(), rel=1e-5)
