"""A task as a record of functions, and checks that several tasks share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from atoll.config import Experiment
from atoll.data import FederatedData, Row, RowKind
from atoll.data.moments import Moments
from atoll.data.rows import nearest
from atoll.errors import ConfigError, DataError, ModelError
from atoll.models.base import Base
from atoll.models.checks import reads_at_most
from atoll.models.locate import Source, locate
from atoll.models.objective import Batch, Objective

__all__ = [
    "EMPTY",
    "Reading",
    "Task",
    "Usage",
    "check_length",
    "labels_of",
    "one_class_each",
    "source_of",
    "usual_kind",
]

EMPTY = "a text is empty, a chat has no answer, or a prompt fills all of data.max_length"


@dataclass(frozen=True)
class Reading:
    """What outputs are read with.

    rows: those that the outputs are of.   top: how many guesses are shown of each.
    moments: mean and deviation of the labels that a regression was trained on.
    experiment: what the model was trained by.
    """

    rows: Sequence[Row]
    labels: Sequence[str]
    tokenizer: Any
    top: int
    moments: Moments | None = None
    experiment: Experiment | None = None


def _no_files(experiment: Experiment, base: Base) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Task:
    """What a task asks of rows and model.

    base: loads the model, with a head for the data's labels; a DataError for rows of another kind.
    objective: the task's functions on rows and outputs.
    row: a made-up row with one of the given labels, to build the model without anyone's data.
    usage: lines of plain Python from a loaded `model` to its outputs, for the card.
    asks: columns of which a row to predict for has one.
    read: (outputs of N rows, their batch, what they are read with) -> what is said of each row;
        None for models that write text instead.
    files: JSON files that stand beside the trained values, by name, for who loads them elsewhere.
    others: made-up rows of the other kinds that the task reads.
    """

    base: Callable[[Experiment, FederatedData], Base]
    objective: Callable[[Experiment, Base, FederatedData], Objective]
    row: Callable[[Sequence[str] | None], tuple[Row, RowKind]]
    usage: Callable[[Experiment, Base], Usage]
    asks: tuple[str, ...]
    read: Callable[[Tensor, Batch, Reading], list[dict[str, Any]]] | None = None
    files: Callable[[Experiment, Base], Mapping[str, Any]] = _no_files
    others: Mapping[RowKind, Row] = field(default_factory=dict)


@dataclass(frozen=True)
class Usage:
    """inputs: lines that make the model's inputs.   outputs: lines that compute with them.

    readers: Auto classes that the inputs need: AutoTokenizer as `tokenizer`, AutoImageProcessor as
        `processor`.
    options: of loading the model, as they stand in a call.
    """

    inputs: Sequence[str]
    outputs: Sequence[str]
    readers: tuple[str, ...] = ("AutoTokenizer",)
    options: str = ""


def source_of(experiment: Experiment) -> Source:
    """Where the model that the file names stands."""
    model, method = experiment.model, experiment.adapter.method
    if model.load_in_8bit and method in ("full", "layers"):
        raise ConfigError(
            f"model.load_in_8bit is true, but adapter.method is {method}, which trains the weights "
            "themselves; use lora, or set model.load_in_8bit to false"
        )
    found = locate(
        model.name_or_path,
        revision=model.revision,
        trust_remote_code=model.trust_remote_code,
        gguf_file=model.gguf_file,
    )
    return replace(found, load_in_8bit=model.load_in_8bit)


def usual_kind(experiment: Experiment, data: FederatedData, kinds: Sequence[RowKind]) -> None:
    """Refuse rows of a kind that the task does not read."""
    if data.kind not in kinds:
        words = " or ".join(kind.replace("/", " and ") for kind in kinds)
        needed = {name for kind in kinds for name in kind.split("/")}
        others = [name for name in experiment.data.columns if name not in needed]
        near = next((hint for name in others if (hint := nearest(name, sorted(needed)))), "")
        raise DataError(
            f"task {experiment.model.task} needs rows of {words}; {experiment.data.path} has "
            f"{data.kind} rows. Map the columns with data.columns{near}, or set model.task"
        )


def labels_of(experiment: Experiment, data: FederatedData) -> tuple[str, ...]:
    """The label names; a DataError where labels are decimal numbers."""
    if data.labels is None:
        raise DataError(
            f"{experiment.data.path}: labels are decimal numbers, and task "
            f"{experiment.model.task} tells classes apart; write class names or whole numbers, or "
            "set model.task to regression"
        )
    return data.labels


def one_class_each(
    experiment: Experiment, data: FederatedData, label_of: Callable[[Row], str]
) -> tuple[str, ...]:
    """The classes of rows that have one each; the first client's rows are looked at.

    Raises:
        DataError: for rows with several, and where all rows have the same one.
    """
    labels, first = labels_of(experiment, data), data.clients[0]
    for number, row in enumerate(data.rows(first, "train"), start=1):
        try:
            label_of(row)
        except DataError as error:
            raise DataError(f"client {first}, training row {number}: {error}") from error
    if len(labels) == 1:
        raise DataError(
            f"{experiment.data.path}: every row has the label `{labels[0]}`, so that there is "
            "nothing to tell apart; name the column of the labels (data.columns), or all of them "
            "(data.labels)"
        )
    return labels


def check_length(length: int, base: Base) -> None:
    """Refuse a data.max_length that is more than the model reads or less than a row needs."""
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
