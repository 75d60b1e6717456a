"""Vectors of texts: one encoder for anchors, positives and negatives, as it was trained to pool."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from atoll.errors import DataError, ModelError
from atoll.models.base import Base, ready, seeded
from atoll.models.checks import check_text_alone, check_tokenizer
from atoll.models.collate import IGNORED, collate_text
from atoll.models.contrast import Contrast, key_of
from atoll.models.encode import encode_texts, uncut
from atoll.models.locate import Source, load_auto
from atoll.models.objective import Batch, Example, Objective, no_terms
from atoll.models.pooling import Pooling, pool
from atoll.models.reach import reached
from atoll.models.retrieval import retrieval
from atoll.models.sentence import Asked, sentence_pooling

__all__ = ["SCALE", "USUAL", "LogScale", "TextEncoder", "Vectors", "embedding", "load_encoder"]

SCALE = "log_scale"
"""The head of a model whose temperature is learned."""

USUAL = 0.05
"""The temperature of sentence-transformers' ranking loss (its scale of 20)."""


@dataclass(frozen=True)
class Vectors:
    """How things become vectors, and what a model learns beside them.

    learned: whether the temperature trains.   temperature: where it starts; None: the model's own.
    """

    pooling: Asked = "auto"
    normalize: bool | None = None
    learned: bool = False
    temperature: float | None = None
    seed: int = 0


class LogScale(nn.Module):
    """The logarithm of 1 / temperature, as a layer that trains whole: one value a row."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.layer.weight, value)

    def forward(self, like: Tensor) -> Tensor:
        """[N, 1] beside [N, …]."""
        found: Tensor = self.layer(like.new_ones(len(like), 1))
        return found


class TextEncoder(nn.Module):
    """Backbone and pooling; a last column holds the learned scale's logarithm, if there is one."""

    def __init__(
        self, backbone: nn.Module, *, pooling: Pooling, normalize: bool, log_scale: float | None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling: Pooling = pooling
        self.normalize = normalize
        self.log_scale = None if log_scale is None else LogScale(log_scale)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[N, d], or [N, d + 1] with a learned scale; float32 or finer."""
        output = self.backbone(input_ids=input_ids, attention_mask=attention_mask)
        hidden = output.last_hidden_state
        hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        pooled = pool(hidden, attention_mask, self.pooling, normalize=self.normalize)
        if self.log_scale is None:
            return pooled
        return torch.cat([pooled, self.log_scale(pooled).to(pooled.dtype)], dim=1)


def load_encoder(
    source: Source, vectors: Vectors, *, dtype: str = "auto", attention: str | None = None
) -> Base:
    """Load a text encoder with its pooling and tokenizer.

    Raises:
        ModelError: when the model is not there, has no tokenizer, or makes its vectors otherwise.
    """
    source = reached(source)
    tokenizer = load_auto("AutoTokenizer", source)
    check_tokenizer(tokenizer, source)
    pooling, normalize = sentence_pooling(source, vectors.pooling, vectors.normalize)
    options: dict[str, Any] = {"dtype": dtype if dtype == "auto" else getattr(torch, dtype)}
    if attention is not None:
        options["attn_implementation"] = attention
    with seeded(vectors.seed):
        backbone = load_auto("AutoModel", source, options=options)
    check_text_alone(backbone, source)
    if backbone.config.is_encoder_decoder:
        raise ModelError(
            f"model {source.hub_id} ({type(backbone).__name__}) has an encoder and a decoder, and "
            "a vector of a text needs one of them; name a model such as BERT or Llama"
        )
    log_scale = -math.log(vectors.temperature or USUAL) if vectors.learned else None
    model = TextEncoder(backbone, pooling=pooling, normalize=normalize, log_scale=log_scale)
    if model.log_scale is not None and next(backbone.parameters()).dtype == torch.float64:
        model.log_scale.double()
    head = None if log_scale is None else f"{SCALE}.layer"
    base = Base(backbone, backbone, "backbone.", tokenizer, source, "AutoModel", head)
    return ready(replace(base, model=model, pooling=pooling, normalize=normalize))


def embedding(
    tokenizer: Any, contrast: Contrast, *, max_length: int, truncation: bool = True, views: int = 2
) -> Objective:
    """A contrastive loss over rows of anchor, positive and, with three views, negative.

    A row to predict for has an anchor or a text alone.
    """
    columns = ("anchor", "positive", "negative")[:views]

    def encode(rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        said = [
            [_asked(row)] if row.get("positive") is None else [row[name] for name in columns]
            for row in rows
        ]
        texts = [text for one in said for text in one]
        found = iter(encode_texts(tokenizer, texts, max_length=max_length, truncation=True))
        examples = [_example([next(found) for _ in one]) for one in said]
        if not truncation:
            uncut(examples, max_length=max_length)
        return examples

    return Objective(
        metric=retrieval(both_ways=False, learned=contrast.temperature is None),
        encode=encode,
        count=lambda example: 1,
        collate=functools.partial(_collate, pad_token_id=tokenizer.pad_token_id),
        terms=no_terms,
        losses=lambda outputs, batch, terms: contrast.losses(outputs, batch),
        across=True,
    )


def _asked(row: Mapping[str, Any]) -> str:
    """The text of a row to predict for."""
    found: str | None = row.get("text") if row.get("anchor") is None else row["anchor"]
    if found is None:
        raise DataError("a row has neither a text nor an anchor, and this model reads texts")
    return found


def _example(views: Sequence[Any]) -> Example:
    keys = np.asarray([key_of(view.ids) for view in views], dtype=np.int64)
    # A row is one row, however many of its texts are too long.
    over = sorted(length for view in views for length in view.over)[-1:]
    found: Example | None = None
    for view in reversed(views):
        found = Example(view.ids, keys, pair=found, over=tuple(over))
    assert found is not None, "a row has at least one text"
    return found


def _collate(examples: Sequence[Example | None], *, pad_token_id: int) -> Batch:
    """[N·V, T]: the views of a row stand one after another."""
    split = [_views(example) for example in examples]
    views = max(map(len, split))
    flat = [view for own in split for view in [*own, *[None] * (views - len(own))]]
    batch = collate_text(flat, pad_token_id=pad_token_id, token_targets=False)
    keys = [[] if example is None else example.target.tolist() for example in examples]
    target = [[*own, *[IGNORED] * (views - len(own))] for own in keys]
    return replace(batch, target=torch.tensor(target), views=views)


def _views(example: Example | None) -> list[Example | None]:
    """The texts of a row, one by one."""
    if example is None:
        return [None]
    rest = [] if example.pair is None else _views(example.pair)
    return [replace(example, pair=None, target=example.target[:1]), *rest]
