"""Token classification: a tag for each word, such as the entities of a text."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from atoll.config import Experiment
from atoll.data import FederatedData, Row, RowKind
from atoll.errors import DataError
from atoll.models.auto import load_tagger
from atoll.models.base import Base
from atoll.models.collate import IGNORED
from atoll.models.encode import encode_words, joined_words
from atoll.models.objective import Batch, Objective
from atoll.models.spans import entities, with_entities
from atoll.models.tokens import tagging, words_of
from atoll.tasks.kind import (
    Reading,
    Task,
    Usage,
    check_length,
    labels_of,
    source_of,
    usual_kind,
)
from atoll.tasks.skew import skew_terms
from atoll.tasks.text import batch_lines, num_labels

__all__ = ["TOKEN_CLASSIFICATION"]


def _base(experiment: Experiment, data: FederatedData) -> Base:
    usual_kind(experiment, data, ("tokens/tags",))
    if data.labels is None:
        raise DataError(f"{experiment.data.path}: no training row of any client has a tag")
    model = experiment.model
    return load_tagger(
        source_of(experiment),
        num_tags=len(labels_of(experiment, data)),
        dtype=model.dtype,
        attention=model.attn_implementation,
        seed=experiment.seed,
    )


def _objective(experiment: Experiment, base: Base, data: FederatedData) -> Objective:
    section, tags = experiment.data, labels_of(experiment, data)
    check_length(section.max_length, base)
    return tagging(
        base.tokenizer,
        tags=tags,
        max_length=section.max_length,
        truncation=section.truncation,
        terms=skew_terms(experiment, data, tags),
    )


def _row(labels: Sequence[str] | None) -> tuple[Row, RowKind]:
    assert labels, "a tagger has tags"
    return {"tokens": ["a", "row"], "tags": [labels[0], labels[0]]}, "tokens/tags"


def _usage(experiment: Experiment, base: Base) -> Usage:
    inputs = ['rows = [["a", "row", "of", "words"]]']
    if joined_words(base.tokenizer):
        inputs += [
            "# this tokenizer keeps the space before a word in the word's token",
            "rows = [[' ' * (i > 0) + word for i, word in enumerate(words)] for words in rows]",
        ]
    return Usage(
        [*inputs, *batch_lines(experiment, "rows, is_split_into_words=True")],
        ["logits = model(**batch).logits  # the first token of a word gives its tag"],
        options=num_labels(base),
    )


def _tags(logits: Tensor, batch: Batch, reading: Reading) -> list[dict[str, Any]]:
    """The tag of each word and its probability; entities, where tags mark them."""
    shares, best = logits.double().softmax(-1).max(-1)
    known = batch.target != IGNORED
    return [
        _one(words_of(row), best[i, known[i]].tolist(), shares[i, known[i]].tolist(), reading)
        for i, row in enumerate(reading.rows)
    ]


def _one(
    words: list[str], best: list[int], shares: list[float], reading: Reading
) -> dict[str, Any]:
    """best, shares: of the words that have a token; null is said of others, as behind the cut."""
    places: Sequence[int] = range(len(words))
    if len(best) < len(words):
        (one,) = encode_words(reading.tokenizer, [words], max_length=sys.maxsize, truncation=True)
        places = [word for word in dict.fromkeys(one.words or ()) if word is not None]
    tags: list[str | None] = [None] * len(words)
    chances: list[float | None] = [None] * len(words)
    for place, tag, share in zip(places, best, shares, strict=False):
        tags[place], chances[place] = reading.labels[tag], share
    found: dict[str, Any] = {"tokens": words, "prediction": tags, "probabilities": chances}
    if with_entities(reading.labels):
        found["entities"] = [
            {"type": kind, "text": " ".join(words[start:end]), "start": start, "end": end}
            for kind, start, end in entities([tag or "O" for tag in tags])
        ]
    return found


TOKEN_CLASSIFICATION = Task(_base, _objective, _row, _usage, ("tokens", "text"), _tags)
