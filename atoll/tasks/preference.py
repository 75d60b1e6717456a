"""Preference tuning: of two answers to a prompt, the chosen one is made more probable."""

from __future__ import annotations

from collections.abc import Sequence

from atoll.config import Experiment
from atoll.data import FederatedData, Row, RowKind
from atoll.models.base import Base, load_base
from atoll.models.objective import Objective
from atoll.models.preference import Dpo, preference, reference_of
from atoll.tasks.kind import Task, check_length, source_of, usual_kind
from atoll.tasks.text import model_dtype, text_usage

__all__ = ["PREFERENCE"]


def _base(experiment: Experiment, data: FederatedData) -> Base:
    usual_kind(experiment, data, ("prompt/chosen/rejected",))
    model = experiment.model
    return load_base(source_of(experiment), dtype=model.dtype, attention=model.attn_implementation)


def _objective(experiment: Experiment, base: Base, data: FederatedData) -> Objective:
    section, train = experiment.data, experiment.train
    check_length(section.max_length, base)
    return preference(
        base.tokenizer,
        # A model that trains whole computes in the precision of its values, and so its reference.
        reference_of(base.model, model_dtype(experiment, base)),
        Dpo(train.dpo_beta, train.dpo_label_smoothing),
        max_length=section.max_length,
        truncation=section.truncation,
        batch_size=train.per_device_eval_batch_size,
    )


def _row(labels: Sequence[str] | None) -> tuple[Row, RowKind]:
    row = {"prompt": "a question", "chosen": " an answer", "rejected": " another answer"}
    return row, "prompt/chosen/rejected"


PREFERENCE = Task(
    _base, _objective, _row, text_usage, asks=("messages", "prompt", "instruction", "text")
)
