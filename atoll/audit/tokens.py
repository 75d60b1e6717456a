"""Which tokens an upload gives away: every token of the vocabulary is held against the update."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atoll.audit.sight import Sight, Space, distance, embedding_of, inputs_of
from atoll.experiment.setup import Setup
from atoll.local.bench import Bench
from atoll.models.objective import Example
from atoll.tree import Tree

__all__ = [
    "Vocabulary",
    "embedding_scores",
    "read_texts",
    "scores_of",
    "tokens_of",
    "vocabulary_of",
]

_CHUNK = 2**22
"""Values of what layers read that are in memory at once."""
_SAME = 1e-4


@dataclass(frozen=True)
class Vocabulary:
    """Tokens that a text can be made of, as the first trained layers read them.

    by_position: they read a token otherwise at another place, so that each place is tried.
    """

    ids: Tensor
    by_position: bool


def vocabulary_of(bench: Bench, values: Tree, sight: Sight, tokenizer: Any) -> Vocabulary | None:
    """The tokens, special ones apart; None where layers read what blocks below have mixed."""
    special = set(tokenizer.all_special_ids)
    ids = torch.tensor([token for token in range(len(tokenizer)) if token not in special])
    a, b, c, d, e = ids[:: max(len(ids) // 5, 1)][:5].tolist()
    one, other, moved = (
        read_texts(bench, values, sight, [text])[0] for text in ([a, b, c], [d, b, e], [b, b, b])
    )
    if not _same(one[1], other[1]):
        return None
    return Vocabulary(ids, by_position=not _same(moved[0], moved[1]))


def _same(x: Tensor, y: Tensor) -> bool:
    return float((x - y).norm()) <= _SAME * float(x.norm())


def read_texts(bench: Bench, values: Tree, sight: Sight, texts: Sequence[Sequence[int]]) -> Tensor:
    """What layers read of texts of one length, [texts, places, d]."""
    ids = torch.tensor(texts)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return inputs_of(bench, values, inputs, sight)


def _vectors(
    bench: Bench, values: Tree, sight: Sight, vocabulary: Vocabulary, places: int
) -> Iterator[Tensor]:
    """[tokens, places, d], some tokens at a time; one place where it does not matter."""
    places = places if vocabulary.by_position else 1
    width = read_texts(bench, values, sight, [[int(vocabulary.ids[0])]]).shape[-1]
    for some in torch.split(vocabulary.ids, max(_CHUNK // (places * width), 1)):
        yield read_texts(bench, values, sight, some.unsqueeze(1).expand(-1, places).tolist())


def scores_of(
    bench: Bench,
    values: Tree,
    sight: Sight,
    vocabulary: Vocabulary,
    uploads: Sequence[Sequence[Space]],
    places: int,
) -> list[Tensor]:
    """For each upload the residual [tokens, places] of every token, at every place that matters."""
    found: list[list[Tensor]] = [[] for _ in uploads]
    for vectors in _vectors(bench, values, sight, vocabulary, places):
        for own, spaces in zip(found, uploads, strict=True):
            own.append(distance(vectors, spaces).cpu())
    return [torch.cat(own) for own in found]


def embedding_scores(setup: Setup, update: Tree, vocabulary: Vocabulary) -> Tensor | None:
    """[tokens]: a score below `EXACT` where a token's own embedding has moved.

    None where the embedding does not train, or all of it moves, as where it also gives the logits.
    """
    embedding = embedding_of(setup.base.backbone)
    named = setup.bench.model.model.named_modules()
    name = next((f"{one}.weight" for one, module in named if module is embedding), "")
    if name not in update:
        return None
    sizes = update[name][vocabulary.ids].norm(dim=1)
    return None if bool(sizes.all()) else torch.where(sizes > 0, 0.0, 1.0)


def tokens_of(examples: Sequence[Example], vocabulary: Vocabulary) -> list[int]:
    """Which of the vocabulary's tokens (by their place in it) are in rows."""
    there = {int(token) for example in examples for token in _ids(example)}
    return [place for place, token in enumerate(vocabulary.ids.tolist()) if token in there]


def _ids(example: Example) -> list[int]:
    rest = [] if example.pair is None else _ids(example.pair)
    return [*example.ids.tolist(), *rest]
