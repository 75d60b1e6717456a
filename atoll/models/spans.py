"""Entities in rows of tags, and how well they are found.

Tags are B-TYPE where an entity begins, I-TYPE inside of it, O elsewhere (IOB2: Tjong Kim Sang,
Veenstra; EACL 1999). An I that follows no entity of its type begins one, as in the evaluation of
CoNLL-2000 and in seqeval.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from atoll.models.metrics import f1_scores
from atoll.models.objective import Batch, Metric, column_sums, unsettled

__all__ = ["Span", "entities", "precision_recall_f1", "tag_metric", "with_entities"]

_TAG = re.compile(r"[BI]-.+")


class Span(NamedTuple):
    """An entity: its type, its first word, and the word after its last."""

    type: str
    start: int
    end: int


def with_entities(tags: Sequence[str]) -> bool:
    """Whether a set of tags marks entities: O, B-TYPE and I-TYPE alone, and not only O."""
    return any(tag != "O" for tag in tags) and all(
        tag == "O" or _TAG.fullmatch(tag) for tag in tags
    )


def entities(tags: Sequence[str]) -> list[Span]:
    """The entities of one row, in order."""
    found: list[Span] = []
    open_type, start = "", 0
    for place, tag in enumerate([*tags, "O"]):
        mark, _, kind = tag.partition("-")
        goes_on = mark == "I" and kind == open_type
        if open_type and not goes_on:
            found.append(Span(open_type, start, place))
            open_type = ""
        if mark in ("B", "I") and not goes_on:
            open_type, start = kind, place
    return found


def tag_metric(tags: Sequence[str]) -> Metric:
    """F1, precision and recall of entities; macro-F1 of tags where they mark none; and accuracy.

    All three are 1 where there is nothing to find and nothing is found.
    """
    return _entity_metric(tags) if with_entities(tags) else _macro_metric(len(tags))


def _entity_metric(tags: Sequence[str]) -> Metric:
    """Sums: entities given, found, and both; right words."""

    def evidence(logits: Tensor, batch: Batch) -> Tensor:
        rows = []
        for said, given in zip(*_said_and_given(logits, batch), strict=True):
            theirs, ours = (set(entities([tags[i] for i in one.tolist()])) for one in (given, said))
            right = int((said == given).sum())
            rows.append([len(theirs), len(ours), len(theirs & ours), right])
        return torch.tensor(rows, dtype=torch.float64)

    def finals(sums: Sequence[float], count: float) -> Mapping[str, float]:
        precision, recall, f1 = precision_recall_f1(sums[0], sums[1], sums[2])
        return {"f1": f1, "precision": precision, "recall": recall, "accuracy": sums[3] / count}

    return Metric("f1", True, evidence, finals, unsettled, column_sums, 4)


def precision_recall_f1(given: float, found: float, both: float) -> tuple[float, float, float]:
    """Precision, recall and F1; 1 where nothing was given and nothing found."""
    if not given and not found:
        return 1.0, 1.0, 1.0
    return (
        both / found if found else 0.0,
        both / given if given else 0.0,
        (2 * both / (given + found)),
    )


def _macro_metric(num_tags: int) -> Metric:
    """Sums: right words, then for each tag the words given, found, and both."""

    def evidence(logits: Tensor, batch: Batch) -> Tensor:
        rows = []
        for said, given in zip(*_said_and_given(logits, batch), strict=True):
            counts = [
                torch.bincount(one, minlength=num_tags)
                for one in (given, said, given[said == given])
            ]
            rows.append(torch.cat([counts[2].sum().view(1), *counts]))
        return torch.stack(rows).double()

    def finals(sums: Sequence[float], count: float) -> Mapping[str, float]:
        parts = (sums[1 + i * num_tags : 1 + (i + 1) * num_tags] for i in range(3))
        scores = f1_scores(*parts)
        return {"macro_f1": sum(scores) / len(scores), "accuracy": sums[0] / count}

    width = 1 + 3 * num_tags
    return Metric("macro_f1", True, evidence, finals, unsettled, column_sums, width)


def _said_and_given(logits: Tensor, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
    """The tags of each row's words, as the model says them and as they were given."""
    target = batch.target.cpu()
    known = [row >= 0 for row in target]
    said = logits.argmax(-1).cpu()
    return (
        [row[places] for row, places in zip(said, known, strict=True)],
        [row[places] for row, places in zip(target, known, strict=True)],
    )
