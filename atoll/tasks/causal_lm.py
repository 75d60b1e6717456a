"""Causal language modelling: the next token of texts, chats and completions."""

from __future__ import annotations

from collections.abc import Sequence

from atoll.config import Experiment
from atoll.data import FederatedData, Row, RowKind
from atoll.errors import DataError
from atoll.models.base import Base, load_base
from atoll.models.causal import causal
from atoll.models.checks import check_packing
from atoll.models.objective import Objective
from atoll.tasks.kind import Task, check_length, source_of
from atoll.tasks.text import text_usage

__all__ = ["CAUSAL_LM"]

# A label beside a text is not read by a language model.
_WRITTEN = ("messages", "prompt/completion", "instruction/output", "text", "text/label")


def _base(experiment: Experiment, data: FederatedData) -> Base:
    model = experiment.model
    return load_base(source_of(experiment), dtype=model.dtype, attention=model.attn_implementation)


def _objective(experiment: Experiment, base: Base, data: FederatedData) -> Objective:
    section = experiment.data
    check_length(section.max_length, base)
    if data.kind not in _WRITTEN:
        raise DataError(
            "task causal-lm needs rows of text, prompt/completion, instruction/output or messages; "
            f"{section.path} has {data.kind} rows. Map the columns with data.columns"
        )
    if section.packing:
        check_packing(base.model, base.source)
    return causal(
        base.tokenizer,
        max_length=section.max_length,
        completion_only=section.completion_only,
        packing=section.packing,
        truncation=section.truncation,
    )


def _row(labels: Sequence[str] | None) -> tuple[Row, RowKind]:
    return {"text": "a row"}, "text"


CAUSAL_LM = Task(
    _base, _objective, _row, text_usage, asks=("messages", "prompt", "instruction", "text")
)
