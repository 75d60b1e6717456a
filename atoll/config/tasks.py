"""What each task has that settings can be about; how it is done stands in `atoll.experiment`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["TASKS", "TaskFacts", "TaskName"]

TaskName = Literal[
    "classification",
    "causal-lm",
    "masked-lm",
    "token-classification",
    "regression",
    "multi-label-classification",
    "image-classification",
    "embedding",
    "preference",
]


@dataclass(frozen=True)
class TaskFacts:
    """Facts that decide which keys of the experiment file a task reads.

    head: labels come from a linear layer on top of the model, which trains whole.
    solved: that layer can be solved from statistics.   classes: each row has one class.
    pools: token vectors become one vector a row.   generates: the model writes text.
    texts: rows hold text, which `data.max_length` cuts.   masks: tokens are masked.
    weighs: classes may weigh differently.   numbers: labels are numbers, not names.
    contrasts: rows are pairs that are told from other pairs.   prefers: of two answers, one.
    """

    head: bool = False
    solved: bool = False
    classes: bool = False
    pools: bool = False
    generates: bool = False
    texts: bool = False
    masks: bool = False
    weighs: bool = False
    numbers: bool = False
    contrasts: bool = False
    prefers: bool = False


TASKS: Mapping[TaskName, TaskFacts] = {
    "classification": TaskFacts(
        head=True, solved=True, classes=True, pools=True, texts=True, weighs=True
    ),
    "causal-lm": TaskFacts(generates=True, texts=True),
    "masked-lm": TaskFacts(texts=True, masks=True),
    "token-classification": TaskFacts(head=True, texts=True, weighs=True),
    "regression": TaskFacts(head=True, solved=True, pools=True, texts=True, numbers=True),
    "multi-label-classification": TaskFacts(head=True, solved=True, pools=True, texts=True),
    "image-classification": TaskFacts(head=True, solved=True, classes=True, weighs=True),
    "embedding": TaskFacts(pools=True, texts=True, contrasts=True),
    "preference": TaskFacts(generates=True, texts=True, prefers=True),
}
assert set(TASKS) == set(get_args(TaskName))
