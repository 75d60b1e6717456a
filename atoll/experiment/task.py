"""The model and the objective of an experiment's task."""

from __future__ import annotations

from atoll.config import Experiment
from atoll.data import FederatedData
from atoll.errors import DataError, ModelError
from atoll.models.base import Base, Head, load_base
from atoll.models.causal import causal
from atoll.models.classification import classification
from atoll.models.locate import locate
from atoll.models.objective import Batch, Example, Objective

__all__ = ["base_of", "objective_of", "probe_batch"]


def base_of(experiment: Experiment, data: FederatedData) -> Base:
    """The base model that the file names, with a head for the data's labels.

    Raises:
        DataError, ModelError: when the rows have no labels, or the model cannot be used.
    """
    model = experiment.model
    source = locate(
        model.name_or_path, revision=model.revision, trust_remote_code=model.trust_remote_code
    )
    head = None
    if model.task == "classification":
        if data.labels is None:
            raise DataError(
                f"task classification needs rows of text and label; {experiment.data.path} has "
                f"{data.kind} rows. Map the columns with data.columns, or set model.task"
            )
        head = Head(
            num_labels=len(data.labels),
            pooling=model.pooling,
            normalize=model.normalize,
            # A solved head needs features that mean something before any training.
            otherwise=None if experiment.adapter.head == "train" else "mean",
            random_features=experiment.adapter.head_features,
            seed=experiment.seed,
        )
    return load_base(source, dtype=model.dtype, head=head, attention=model.attn_implementation)


def objective_of(experiment: Experiment, base: Base, data: FederatedData) -> Objective:
    """The task's functions.

    Raises:
        DataError, ModelError: when the rows are of another task, or longer than the model reads.
    """
    positions = getattr(base.backbone.config, "max_position_embeddings", None)
    limit = min(positions or base.tokenizer.model_max_length, base.tokenizer.model_max_length)
    length = experiment.data.max_length
    if length > limit:
        raise ModelError(
            f"data.max_length is {length}, but {base.source.hub_id} takes at most {limit} tokens"
        )
    train = experiment.train
    if experiment.model.task == "classification":
        assert data.labels is not None
        return classification(
            base.tokenizer,
            labels=data.labels,
            max_length=length,
            restricted=train.restricted,
            logit_adjustment=train.logit_adjustment,
            class_balance=train.class_balance,
        )
    if data.kind not in ("messages", "prompt/completion", "instruction/output", "text"):
        raise DataError(
            "task causal-lm needs rows of text, prompt/completion, instruction/output or messages; "
            f"{experiment.data.path} has {data.kind} rows. Map the columns with data.columns"
        )
    section = experiment.data
    return causal(
        base.tokenizer,
        max_length=length,
        completion_only=section.completion_only,
        packing=section.packing,
    )


def probe_batch(objective: Objective, data: FederatedData) -> Batch:
    """The beginnings of two rows, the same one twice where there is only one."""
    first = objective.encode(data.rows(data.clients[0], "train")[:2])
    rows = [Example(example.ids[:8], example.target[:8]) for example in (first * 2)[:2]]
    return objective.collate(rows)
