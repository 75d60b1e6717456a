"""What a server looks at in an upload, and how much it then knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

import torch
from torch import Tensor

from atoll.audit.eye import Eye
from atoll.audit.ranking import auc
from atoll.audit.rebuild import (
    Later,
    at_their_places,
    in_order,
    reads_forward,
    right_at_places,
    right_in_order,
)
from atoll.audit.sight import (
    Space,
    distance,
    row_vectors,
    spaces_of,
)
from atoll.audit.span import Recovered, recovered
from atoll.audit.tokens import Vocabulary, embedding_scores, scores_of, tokens_of
from atoll.models.objective import Example
from atoll.tree import Tree

__all__ = ["Seen", "Upload", "looked", "mean_of"]

NEXT = 4
"""Groups of layers above the first that tell how a text goes on."""


@dataclass(frozen=True)
class Seen:
    """What an upload gives away; None: it was not looked for.

    tokens: the share of the distinct tokens that are found with as many guesses; token_chance: what
        guessing would find; token_auc: how well they are told from all others.
    exact: how many tokens are certain; wrong: how many of those are not there; true: how many are.
    row_auc: how well the rows are told from rows that nobody trained on.
    order: the share of a batch's tokens that are found at their place.
    """

    tokens: float | None = None
    token_chance: float | None = None
    token_auc: float | None = None
    exact: float | None = None
    wrong: float | None = None
    true: float | None = None
    row_auc: float | None = None
    order: float | None = None


@dataclass(frozen=True)
class Upload:
    """An update, and the rows that it was made of; inverted: rows are put in order again."""

    update: Tree
    rows: Sequence[Example]
    inverted: bool = False


def looked(eye: Eye, uploads: Sequence[Upload]) -> list[Seen]:
    """What is seen in each upload."""
    bench, sight = eye.setup.bench, eye.sights[0]
    spaces = [spaces_of(bench, one.update, eye.values, sight) for one in uploads]
    aucs = [_row_auc(eye, *pair) for pair in zip(uploads, spaces, strict=True)]
    if eye.vocabulary is None:
        return [Seen(row_auc=found) for found in aucs]
    places = max(len(row) for one in uploads for row in one.rows)
    told = [one for one in spaces if one]
    scored = iter(scores_of(bench, eye.values, sight, eye.vocabulary, told, places))
    # What tells nothing leaves all tokens equally likely.
    blank = torch.ones(len(eye.vocabulary.ids), places if eye.vocabulary.by_position else 1)
    scores = [next(scored) if one else blank for one in spaces]
    return [_tokens(eye, *three) for three in zip(uploads, scores, aucs, strict=True)]


def _row_auc(eye: Eye, upload: Upload, spaces: Sequence[Space]) -> float | None:
    if not eye.others:
        return None
    if not spaces:
        return 0.5
    bench = eye.setup.bench

    def near(example: Example) -> float:
        batch = bench.objective.collate([example])
        vectors = row_vectors(bench, eye.values, batch, eye.sights[0])
        return -float(distance(vectors, spaces).mean())

    return auc([near(row) for row in upload.rows], [near(row) for row in eye.others])


def _tokens(eye: Eye, upload: Upload, scores: Tensor, row_auc: float | None) -> Seen:
    vocabulary = eye.vocabulary
    assert vocabulary is not None, "there are tokens to look for"
    single = scores.min(1).values
    rows = embedding_scores(eye.setup, upload.update, vocabulary)
    true = tokens_of(upload.rows, vocabulary)
    if not 0 < len(true) < len(vocabulary.ids):
        return Seen(row_auc=row_auc)
    found = recovered(single if rows is None else rows, true)
    order = _order(eye, upload, scores) if upload.inverted else None
    return Seen(**_named(found), row_auc=row_auc, order=order)


def _named(found: Recovered) -> dict[str, float]:
    return {
        "tokens": found.recall,
        "token_chance": found.chance,
        "token_auc": found.auc,
        "exact": found.exact,
        "wrong": found.wrong,
        "true": found.true,
    }


def _order(eye: Eye, upload: Upload, scores: Tensor) -> float | None:
    """How much of the rows is put in order again; None where nothing tells of order."""
    vocabulary, bench, rows = eye.vocabulary, eye.setup.bench, upload.rows
    assert vocabulary is not None, "there are tokens to put in order"
    if vocabulary.by_position:
        found = at_their_places(scores, vocabulary, rows=len(rows))
        right, count = right_at_places(found, rows, vocabulary)
    else:
        later = _later(eye, upload, vocabulary)
        if later is None or any(row.pair is not None for row in rows):
            return None
        lengths = [len(row.ids) for row in rows]
        texts = in_order(bench, eye.values, scores[:, 0], vocabulary, lengths, later)
        right, count = right_in_order(texts, rows, vocabulary)
    return float(right / count) if count else None


def _later(eye: Eye, upload: Upload, vocabulary: Vocabulary) -> Later | None:
    """Of the next layers those whose update has most rows, so that it tells of most inputs."""
    bench = eye.setup.bench
    told = [(sight, spaces_of(bench, upload.update, eye.values, sight))
            for sight in eye.sights[1 : 1 + NEXT]]  # fmt: skip
    told = [(sight, spaces) for sight, spaces in told if spaces]
    if not told:
        return None
    sight, spaces = max(told, key=lambda one: one[1][0].basis.shape[1])
    if not reads_forward(bench, eye.values, sight, vocabulary):
        return None
    return Later(sight, spaces, eye.setup.base.tokenizer.all_special_ids[:8])


def mean_of(many: Sequence[Seen]) -> Seen:
    """Of several looks of one kind, number by number."""
    each = [asdict(one) for one in many]
    known = {name: [one[name] for one in each if one[name] is not None] for name in each[0]}
    return Seen(**{name: fmean(values) if values else None for name, values in known.items()})
