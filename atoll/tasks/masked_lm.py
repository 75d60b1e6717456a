"""Masked language modelling: the hidden tokens of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from atoll.config import Experiment
from atoll.data import FederatedData, Row, RowKind
from atoll.errors import DataError
from atoll.models.auto import load_masked
from atoll.models.base import Base
from atoll.models.encode import UNKNOWN
from atoll.models.masked import masked
from atoll.models.objective import Batch, Objective
from atoll.tasks.kind import Reading, Task, check_length, source_of, usual_kind
from atoll.tasks.text import text_usage

__all__ = ["MASKED_LM"]


def _base(experiment: Experiment, data: FederatedData) -> Base:
    # A label beside a text is not read.
    usual_kind(experiment, data, ("text", "text/label"))
    model = experiment.model
    return load_masked(
        source_of(experiment),
        dtype=model.dtype,
        attention=model.attn_implementation,
        seed=experiment.seed,
        whole=experiment.adapter.method == "full",
    )


def _objective(experiment: Experiment, base: Base, data: FederatedData) -> Objective:
    section = experiment.data
    check_length(section.max_length, base)
    return masked(
        base.tokenizer,
        max_length=section.max_length,
        probability=section.mlm_probability,
        truncation=section.truncation,
    )


def _row(labels: Sequence[str] | None) -> tuple[Row, RowKind]:
    # As most tokenizers write a mask: a row of words that one does not know has none to hide.
    return {"text": "a row [MASK] <mask>"}, "text"


def _filled(logits: Tensor, batch: Batch, reading: Reading) -> list[dict[str, Any]]:
    """Each text with its masks filled in, and the most probable tokens for each of them."""
    rows = zip(reading.rows, logits, batch.target, strict=True)
    return [_one(row, scores[target == UNKNOWN], reading) for row, scores, target in rows]


def _one(row: Row, scores: Tensor, reading: Reading) -> dict[str, Any]:
    """scores: [masks, vocabulary]."""
    mask, text = str(reading.tokenizer.mask_token), str(row["text"])
    if not len(scores):
        raise DataError(
            f"a text has no {mask} within data.max_length; write {mask} where a word is to be "
            "filled in"
        )
    shares, tokens = scores.double().softmax(-1).topk(min(reading.top, scores.shape[-1]))
    choices = [
        [
            {"token": reading.tokenizer.decode([token]).strip(), "probability": share}
            for token, share in zip(*pair, strict=True)
        ]
        for pair in zip(tokens.tolist(), shares.tolist(), strict=True)
    ]
    first, *others = text.split(mask)
    # Masks behind the cut stay.
    words = [str(best[0]["token"]) for best in choices] + [mask] * (len(others) - len(choices))
    filled = "".join(word + rest for word, rest in zip(words, others, strict=True))
    return {"prediction": first + filled, "masks": choices}


MASKED_LM = Task(_base, _objective, _row, text_usage, ("text",), _filled)
