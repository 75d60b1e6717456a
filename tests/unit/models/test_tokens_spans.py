"""Entities in tags: by hand, and against seqeval; macro-F1 against scikit-learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor

from atoll.models.objective import Batch, Metric
from atoll.models.spans import Span, entities, tag_metric, with_entities

TAGS = ("B-A", "B-B-C", "I-A", "I-B-C", "O")
HAND: dict[str, tuple[str, list[Span]]] = {
    "none": ("O O O", []),
    "empty": ("", []),
    "one": ("O B-A I-A O", [Span("A", 1, 3)]),
    "to the end": ("B-A I-A", [Span("A", 0, 2)]),
    "neighbours": ("B-A B-A I-A", [Span("A", 0, 1), Span("A", 1, 3)]),
    "another type inside": ("B-A I-B-C I-B-C", [Span("A", 0, 1), Span("B-C", 1, 3)]),
    "no beginning": ("O I-A I-A O I-A", [Span("A", 1, 3), Span("A", 4, 5)]),
    "single words": ("B-A O B-B-C", [Span("A", 0, 1), Span("B-C", 2, 3)]),
}
rows = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=8), min_size=1, max_size=5)


@pytest.mark.parametrize("name", HAND)
def test_entities_by_hand(name: str) -> None:
    tags, expected = HAND[name]
    assert entities(tags.split()) == expected


@given(tags=st.lists(st.sampled_from(TAGS), max_size=12))
def test_entities_are_seqevals(tags: list[str]) -> None:
    labelling = pytest.importorskip("seqeval.metrics.sequence_labeling")
    # seqeval counts an entity's last word, and not the one behind it.
    expected = [Span(kind, start, last + 1) for kind, start, last in labelling.get_entities(tags)]
    assert entities(tags) == expected


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        (TAGS, True), (("I-A", "O"), True), (("B-A",), True), (("O",), False), ((), False),
        (("B-A", "O", "E-A"), False), (("NOUN", "VERB"), False), (("0", "1"), False),
        (("B-", "O"), False), (("B-A", "X"), False),
    ],
)  # fmt: skip
def test_tags_that_mark_entities(tags: tuple[str, ...], found: bool) -> None:
    assert with_entities(tags) == found


def _scored(metric: Metric, said: list[list[int]], given: list[list[int]]) -> tuple[Any, Tensor]:
    """The metric over batches of one row each, with words at every second token."""
    parts = []
    for ours, theirs in zip(said, given, strict=True):
        target = torch.full((1, 2 * len(theirs) + 1), -100)
        logits = torch.randn(1, 2 * len(theirs) + 1, len(TAGS))
        target[0, 1::2] = torch.tensor(theirs)
        logits[0, range(1, 2 * len(theirs), 2), ours] += 100
        parts.append(metric.evidence(logits, Batch({}, target)))
    scores = metric.settle(torch.cat(parts))
    sums = metric.total(scores)
    assert len(sums) == metric.width
    halves = metric.total(scores[:1]) + metric.total(scores[1:])
    assert torch.equal(halves, sums), "sums of two sets do not add up"
    return metric.finals(sums.tolist(), float(sum(map(len, given)))), sums


@given(pairs=st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1,
                               max_size=7), min_size=1, max_size=5))  # fmt: skip
def test_the_entity_metric_is_seqevals(pairs: list[list[tuple[int, int]]]) -> None:
    seqeval = pytest.importorskip("seqeval.metrics")
    said = [[ours for ours, _ in row] for row in pairs]
    given = [[theirs for _, theirs in row] for row in pairs]
    finals, _ = _scored(tag_metric(TAGS), said, given)
    names = [[[TAGS[tag] for tag in row] for row in side] for side in (given, said)]
    assert finals["accuracy"] == pytest.approx(seqeval.accuracy_score(*names))
    if not any(entities(row) for side in names for row in side):
        # Nothing to find, and nothing found: seqeval calls it 0.
        assert finals["f1"] == finals["precision"] == finals["recall"] == 1.0
        return
    options = {"zero_division": 0}
    assert finals["f1"] == pytest.approx(seqeval.f1_score(*names, **options))
    assert finals["precision"] == pytest.approx(seqeval.precision_score(*names, **options))
    assert finals["recall"] == pytest.approx(seqeval.recall_score(*names, **options))


def test_the_entity_metric_by_hand() -> None:
    # Given: A at 0-2 and B-C at 3; said: A at 0-2 and A at 3. One of two, in both directions.
    finals, sums = _scored(tag_metric(TAGS), [[0, 2, 4, 0]], [[0, 2, 4, 1]])
    assert sums.tolist() == [2.0, 2.0, 1.0, 3.0]
    assert dict(finals) == {"f1": 0.5, "precision": 0.5, "recall": 0.5, "accuracy": 0.75}
    # Half of an entity is none.
    finals, _ = _scored(tag_metric(TAGS), [[0, 4, 4]], [[0, 2, 4]])
    assert dict(finals) == {"f1": 0.0, "precision": 0.0, "recall": 0.0, "accuracy": 2 / 3}


@given(rows)
def test_tags_that_mark_no_entities_are_scored_as_classes(given: list[list[int]]) -> None:
    said = [[(tag + (place % 3 == 0)) % 5 for place, tag in enumerate(row)] for row in given]
    metric = tag_metric(("ADJ", "ADV", "NOUN", "VERB", "X"))
    finals, _ = _scored(metric, said, given)
    flat = [[tag for row in side for tag in row] for side in (given, said)]
    assert dict(finals) == pytest.approx(
        {"macro_f1": f1_score(*flat, average="macro"), "accuracy": accuracy_score(*flat)}
    )
    assert (metric.name, tag_metric(TAGS).name) == ("macro_f1", "f1")
