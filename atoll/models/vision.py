"""Image classification: one label an image, on models of transformers' Auto class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from atoll.errors import ModelError
from atoll.models.base import Base, ready, seeded
from atoll.models.classification import class_losses, label_of
from atoll.models.collate import IGNORED
from atoll.models.images import Pixels, load_processor
from atoll.models.locate import Source, load_auto
from atoll.models.metrics import accuracy
from atoll.models.objective import Batch, Example, Objective
from atoll.models.pooling import output_layer
from atoll.models.reach import reached
from atoll.tree import Tree

__all__ = ["image_classification", "load_vision"]

AUTO = "AutoModelForImageClassification"


def load_vision(
    source: Source,
    *,
    num_labels: int,
    dtype: str = "auto",
    attention: str | None = None,
    seed: int = 0,
) -> Base:
    """Load an image model with a classifier of so many labels, and its image processor.

    A classifier that the checkpoint has for other labels is left behind.

    Raises:
        ModelError: when the model is not there, reads no images, or has no linear classifier.
    """
    source = reached(source)
    options: dict[str, Any] = {
        "dtype": dtype if dtype == "auto" else getattr(torch, dtype),
        "num_labels": num_labels,
        "ignore_mismatched_sizes": True,
        "output_loading_info": True,
    }
    if attention is not None:
        options["attn_implementation"] = attention
    with seeded(seed):
        model, found = load_auto(AUTO, source, options=options)
    name = output_layer(model)
    top = name.split(".")[0]
    others = sorted(key for key, *_ in found["mismatched_keys"] if key.split(".")[0] != top)
    if others:
        raise ModelError(
            f"model {source.hub_id}: {others[0]} has another shape among its weights than its "
            "config.json says; check its files"
        )
    fresh = tuple(sorted(key for key in found["missing_keys"] if key.split(".")[0] != top))
    processor = load_processor(source, model.config)
    model.register_forward_pre_hook(_as_precise, with_kwargs=True)
    base = ready(Base(model, model, "", None, source, AUTO, name, fresh=fresh))
    return replace(base, processor=processor)


def _as_precise(
    model: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Pixels in the precision that the model computes in."""
    dtype = next(model.parameters()).dtype
    return args, {**inputs, "pixel_values": inputs["pixel_values"].to(dtype)}


def image_classification(
    pixels: Pixels,
    *,
    opened: Callable[[Any], Any],
    labels: Sequence[str],
    terms: Callable[[Sequence[Example]], Tree],
) -> Objective:
    """Cross-entropy over `labels` of images.

    opened: what a row holds as its image -> a Pillow image.
    terms: as of `class_terms`.
    """
    index = {label: i for i, label in enumerate(labels)}

    def encode(rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        nothing = np.zeros(0, dtype=np.int32)
        known = [index[label_of(row)] if "label" in row else IGNORED for row in rows]
        return [
            Example(nothing, np.asarray([label]), pixels=pixels.pack(opened(row["image"])))
            for row, label in zip(rows, known, strict=True)
        ]

    def collate(examples: Sequence[Example | None]) -> Batch:
        images = pixels.unpack([None if x is None else x.pixels for x in examples])
        target = [IGNORED if x is None else int(x.target[0]) for x in examples]
        return Batch({"pixel_values": images}, torch.tensor(target).unsqueeze(1))

    return Objective(
        metric=accuracy(len(labels)),
        encode=encode,
        count=lambda example: 1,
        collate=collate,
        terms=terms,
        losses=class_losses,
    )
