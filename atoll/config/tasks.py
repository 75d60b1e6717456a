"""What each task has that settings can be about; how it is done stands in `atoll.experiment`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["TASKS", "TaskFacts", "TaskName"]

TaskName = Literal["classification", "causal-lm"]


@dataclass(frozen=True)
class TaskFacts:
    """Facts that decide which keys of the experiment file a task reads.

    head: labels come from a linear layer on top of the model, which trains whole.
    solved: that layer can be solved from statistics.   classes: each row has one class.
    pools: token vectors become one vector a row.   generates: the model writes text.
    """

    head: bool = False
    solved: bool = False
    classes: bool = False
    pools: bool = False
    generates: bool = False


TASKS: Mapping[TaskName, TaskFacts] = {
    "classification": TaskFacts(head=True, solved=True, classes=True, pools=True),
    "causal-lm": TaskFacts(generates=True),
}
assert set(TASKS) == set(get_args(TaskName))
