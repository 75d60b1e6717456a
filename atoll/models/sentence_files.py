"""The files by which sentence-transformers knows how a model makes vectors of texts."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from atoll.models.base import Base

__all__ = ["sentence_files"]

_SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
}
"""As version 2 names them; later ones read these too."""


def sentence_files(base: Base, *, max_length: int) -> dict[str, Any]:
    """modules.json and what it names, of a text encoder with a pooling, and its tokenizer's."""
    assert base.pooling is not None, "a text encoder has a pooling"
    kinds = ["Transformer", "Pooling", *(["Normalize"] if base.normalize else [])]
    modules = [
        {
            "idx": place,
            "name": str(place),
            "path": f"{place}_{kind}" if place else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for place, kind in enumerate(kinds)
    ]
    modes = {name: pooling == base.pooling for name, pooling in _SWITCHES.items()}
    width = base.backbone.config.hidden_size  # type: ignore[union-attr]
    return {
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": width, **modes},
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
        **_tokenizer_files(base.tokenizer),
    }


def _tokenizer_files(tokenizer: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = sorted(Path(folder).glob("*.json"))
        return {file.name: json.loads(file.read_text(encoding="utf-8")) for file in files}
