"""The model and the objective of an experiment's task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from atoll.config import Experiment
from atoll.data import FederatedData
from atoll.errors import DataError, ModelError
from atoll.models.base import Base, Head, load_base
from atoll.models.causal import causal
from atoll.models.checks import reads_at_most
from atoll.models.classification import classification, label_of
from atoll.models.locate import locate
from atoll.models.objective import Batch, Example, Objective

__all__ = ["base_of", "objective_of", "predicting", "probe_batch"]

# A label beside a text is not read by a language model.
_WRITTEN = ("messages", "prompt/completion", "instruction/output", "text", "text/label")
_EMPTY = "a text is empty, a chat has no answer, or a prompt fills all of data.max_length"
_NAMED = 3


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
        head = Head(
            num_labels=len(_labels(experiment, data)),
            pooling=model.pooling,
            normalize=model.normalize,
            # A solved head needs features that mean something before any training.
            otherwise=None if experiment.adapter.head == "train" else "mean",
            random_features=experiment.adapter.head_features,
            seed=experiment.seed,
        )
    return load_base(source, dtype=model.dtype, head=head, attention=model.attn_implementation)


def _labels(experiment: Experiment, data: FederatedData) -> tuple[str, ...]:
    """The classes; a DataError where rows have other labels or none."""
    path = experiment.data.path
    if data.kind != "text/label":
        raise DataError(
            f"task classification needs rows of text and label; {path} has {data.kind} rows. "
            "Map the columns with data.columns, or set model.task"
        )
    if data.labels is None:
        raise DataError(
            f"{path}: labels are decimal numbers, and task classification tells classes apart; "
            "write class names or whole numbers"
        )
    for client in data.clients[:1]:
        for row in data.rows(client, "train"):
            label_of(row)
    return data.labels


def objective_of(experiment: Experiment, base: Base, data: FederatedData) -> Objective:
    """The task's functions.

    Raises:
        DataError, ModelError: when the rows are of another task, or data.max_length is more than
            the model reads or less than a row needs.
    """
    _check_length(experiment.data.max_length, base)
    train = experiment.train
    if experiment.model.task == "classification":
        assert data.labels is not None
        return classification(
            base.tokenizer,
            labels=data.labels,
            max_length=experiment.data.max_length,
            restricted=train.restricted,
            logit_adjustment=train.logit_adjustment,
            class_balance=train.class_balance,
        )
    if data.kind not in _WRITTEN:
        raise DataError(
            "task causal-lm needs rows of text, prompt/completion, instruction/output or messages; "
            f"{experiment.data.path} has {data.kind} rows. Map the columns with data.columns"
        )
    section = experiment.data
    return causal(
        base.tokenizer,
        max_length=section.max_length,
        completion_only=section.completion_only,
        packing=section.packing,
    )


def _check_length(length: int, base: Base) -> None:
    limit, model = reads_at_most(base.backbone, base.tokenizer), base.source.hub_id
    if length > limit:
        raise ModelError(
            f"data.max_length is {length}, but {model} takes at most {limit} tokens; lower it"
        )
    special = base.tokenizer.num_special_tokens_to_add()
    if length <= special:
        raise ModelError(
            f"data.max_length is {length}, but the tokenizer of {model} adds {special} special "
            f"tokens to each row; set at least {special + 1}, better as long as the rows are"
        )


def probe_batch(objective: Objective, data: FederatedData) -> Batch:
    """The beginnings of two rows, the same one twice where there is only one.

    Raises:
        DataError: when no row of any client holds something to predict.
    """
    for client in data.clients:
        rows = data.rows(client, "train")
        first = objective.encode(rows[:2]) or objective.encode(rows)
        if first:
            cut = [Example(example.ids[:8], example.target[:8]) for example in (first * 2)[:2]]
            return objective.collate(cut)
    raise DataError(f"no training row of any client has anything to predict: {_EMPTY}")


def predicting(
    data: FederatedData,
    examples: Callable[[str, str], Sequence[Example]],
    *,
    note: Callable[[str], None],
) -> FederatedData:
    """The data without clients whose training rows all hold nothing to predict.

    Says whose rows do; such rows are not encoded.
    examples: (client, "train") -> the client's encoded rows.
    """
    usable = {client: sum(one.rows for one in examples(client, "train")) for client in data.clients}
    missing = {client: data.counts[client].train - rows for client, rows in usable.items()}
    found = {client: number for client, number in missing.items() if number}
    for client, number in list(found.items())[:_NAMED]:
        rows = "1 row" if number == 1 else f"{number} rows"
        verbs = ("has", "is") if number == 1 else ("have", "are")
        note(f"{rows} of {client} {verbs[0]} nothing to predict and {verbs[1]} left out: {_EMPTY}")
    others = len(found) - _NAMED
    if others > 0:
        clients = "client" if others == 1 else "clients"
        note(f"rows of {others} more {clients} have nothing to predict and are left out")
    return data.without([client for client, rows in usable.items() if not rows], _EMPTY)
