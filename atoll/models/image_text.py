"""A contrastive loss between images and texts, both ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atoll.errors import DataError
from atoll.models.base import Base
from atoll.models.collate import IGNORED
from atoll.models.contrast import Contrast, key_of
from atoll.models.dual import text_length, told_padding
from atoll.models.encode import encode_texts
from atoll.models.images import Pixels
from atoll.models.objective import Batch, Example, Objective, no_terms
from atoll.models.retrieval import retrieval

__all__ = ["image_text"]


def image_text(
    base: Base,
    pixels: Pixels,
    contrast: Contrast,
    *,
    opened: Callable[[Any], Any],
    max_length: int,
    truncation: bool = True,
) -> Objective:
    """A contrastive loss over rows of image and text; a row to predict for may have one of them.

    Texts are padded to one length, so that what is drawn for a client does not depend on others.
    opened: what a row holds as its image -> a Pillow image.
    """
    tokenizer = base.tokenizer
    masks, length = told_padding(base), text_length(base, max_length)

    def encode(rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        texts = [row["text"] for row in rows if row.get("text") is not None]
        found = iter(encode_texts(tokenizer, texts, max_length=length, truncation=truncation))
        examples = []
        for row in rows:
            image, text = row.get("image"), None if row.get("text") is None else next(found)
            if image is None and text is None:
                raise DataError("a row has neither an image nor a text")
            packed = None if image is None else pixels.pack(opened(image))
            ids = np.zeros(0, dtype=np.int32) if text is None else text.ids
            keys = [IGNORED if packed is None else key_of(packed)]
            keys.append(IGNORED if text is None else key_of(text.ids))
            over = () if text is None else text.over
            examples.append(Example(ids, np.asarray(keys), pixels=packed, over=over))
        return examples

    def collate(examples: Sequence[Example | None]) -> Batch:
        target = torch.tensor([[IGNORED] * 2 if x is None else x.target.tolist() for x in examples])
        inputs: dict[str, Tensor] = {}
        if bool((target[:, 0] != IGNORED).any()):
            images = [None if x is None else x.pixels for x in examples]
            inputs["pixel_values"] = pixels.unpack(images)
        if bool((target[:, 1] != IGNORED).any()):
            ids, mask = _padded(examples, length, tokenizer.pad_token_id)
            inputs |= {"input_ids": ids} | ({"attention_mask": mask} if masks else {})
        return Batch(inputs, target)

    return Objective(
        metric=retrieval(both_ways=True, learned=contrast.temperature is None),
        encode=encode,
        count=lambda example: 1,
        collate=collate,
        terms=no_terms,
        losses=lambda outputs, batch, terms: contrast.losses(outputs, batch),
        across=True,
    )


def _padded(
    examples: Sequence[Example | None], length: int, pad_token_id: int
) -> tuple[Tensor, Tensor]:
    """Token ids and mask [N, length]; a row without a text attends to its first position only."""
    ids = torch.full((len(examples), length), pad_token_id)
    mask = torch.zeros(len(examples), length, dtype=torch.long)
    mask[:, 0] = 1
    for row, example in enumerate(examples):
        if example is not None:
            ids[row, : len(example.ids)] = torch.from_numpy(example.ids)
            mask[row, : len(example.ids)] = 1
    return ids, mask
