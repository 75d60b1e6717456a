"""Embedding: vectors of texts, or of images and texts, near each other where things belong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atoll.config import Experiment
from atoll.data import FederatedData, Row, RowKind
from atoll.data.images import open_image
from atoll.errors import ConfigError
from atoll.models.base import Base
from atoll.models.collate import IGNORED
from atoll.models.contrast import Contrast, vectors_of
from atoll.models.dual import load_dual, own_temperature, text_length
from atoll.models.embedding import USUAL, Vectors, embedding, load_encoder
from atoll.models.image_text import image_text
from atoll.models.images import pixels_of
from atoll.models.objective import Batch, Objective
from atoll.models.sentence_files import sentence_files
from atoll.tasks.kind import Reading, Task, Usage, check_length, source_of, usual_kind
from atoll.tasks.pictures import image_lines, processor_file
from atoll.tasks.text import batch_lines, feature_lines, model_dtype

__all__ = ["EMBEDDING"]

_KINDS: tuple[RowKind, ...] = ("anchor/positive", "anchor/positive/negative", "image/text")


def _base(experiment: Experiment, data: FederatedData) -> Base:
    usual_kind(experiment, data, _KINDS)
    model, train = experiment.model, experiment.train
    load = load_dual if data.kind == "image/text" else load_encoder
    return load(
        source_of(experiment),
        Vectors(
            pooling=model.pooling,
            normalize=model.normalize,
            learned=train.learn_temperature,
            temperature=train.temperature,
            seed=experiment.seed,
        ),
        dtype=model.dtype,
        attention=model.attn_implementation,
    )


def _objective(experiment: Experiment, base: Base, data: FederatedData) -> Objective:
    check_length(experiment.data.max_length, base)
    section, train, images = experiment.data, experiment.train, base.processor
    views = len(data.kind.split("/"))
    if train.per_device_train_batch_size == 1 and views == 2:
        raise ConfigError(
            "train.per_device_train_batch_size is 1, but an embedding tells each row from the "
            "others of its batch: nothing would train; use more, 32 say"
        )
    temperature = train.temperature
    if temperature is None:
        temperature = USUAL if images is None else own_temperature(base.backbone)
    symmetric = images is not None if train.symmetric is None else train.symmetric
    contrast = Contrast(None if train.learn_temperature else temperature, symmetric)
    if images is None:
        return embedding(
            base.tokenizer,
            contrast,
            max_length=section.max_length,
            truncation=section.truncation,
            views=views,
        )
    return image_text(
        base,
        pixels_of(images, base.source),
        contrast,
        opened=open_image,
        max_length=section.max_length,
        truncation=section.truncation,
    )


def _row(labels: Sequence[str] | None) -> tuple[Row, RowKind]:
    return {"anchor": "a row", "positive": "another row"}, "anchor/positive"


_OTHERS: dict[RowKind, Row] = {
    "anchor/positive/negative": {"anchor": "a row", "positive": "another", "negative": "no row"},
    "image/text": {"image": np.zeros((8, 8), dtype=np.uint8), "text": "a row"},
}


def _usage(experiment: Experiment, base: Base) -> Usage:
    texts = ['texts = ["a row of text"]', *batch_lines(experiment, "texts")]
    if base.processor is None:
        lines = feature_lines(experiment, base)
        return Usage(texts, [*lines, "embeddings = features"])
    return Usage(
        [*_padded(experiment, base), *image_lines(base, name="pictures")],
        [
            *_features("text", "batch", experiment, base),
            *_features("image", "pictures", experiment, base),
        ],
        readers=("AutoTokenizer", "AutoImageProcessor"),
    )


def _padded(experiment: Experiment, base: Base) -> list[str]:
    """Texts of one length, as they were trained."""
    length = text_length(base, experiment.data.max_length)
    return [
        'texts = ["a row of text"]',
        "batch = tokenizer(",
        f'    texts, padding="max_length", truncation=True, max_length={length}, '
        'return_tensors="pt"',
        ")",
    ]


def _features(what: str, inputs: str, experiment: Experiment, base: Base) -> list[str]:
    exact = ".float()" if model_dtype(experiment, base) == torch.bfloat16 else ""
    lines = [
        f"found = model.get_{what}_features(**{inputs})",
        "vectors = found if torch.is_tensor(found) else found.pooler_output",
    ]
    vectors = f"vectors{exact}"
    if base.normalize:
        vectors = f"torch.nn.functional.normalize({vectors}, dim=-1)"
    return [*lines, f"{what}_embeddings = {vectors}"]


def _read(outputs: Tensor, batch: Batch, reading: Reading) -> list[dict[str, Any]]:
    """A vector of what each row has: its text, or its image and its text."""
    assert reading.experiment is not None, "who reads vectors knows how they were made"
    learned = reading.experiment.train.learn_temperature
    vectors = vectors_of(outputs, batch, learned=learned).tolist()
    if batch.target.shape[1] == 1:
        return [{"embedding": one} for (one,) in vectors]
    names = ("image_embedding", "text_embedding")
    return [
        {name: one for name, one, key in zip(names, own, keys, strict=True) if key != IGNORED}
        for own, keys in zip(vectors, batch.target.tolist(), strict=True)
    ]


def _files(experiment: Experiment, base: Base) -> Mapping[str, Any]:
    if base.processor is not None:
        return processor_file(experiment, base)
    return sentence_files(base, max_length=experiment.data.max_length)


EMBEDDING = Task(
    _base, _objective, _row, _usage, ("text", "anchor", "image"), _read, _files, _OTHERS
)
