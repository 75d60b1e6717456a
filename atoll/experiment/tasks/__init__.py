"""What each task asks of rows and model, one file a task.

task = task_of(experiment)
base = task.base(experiment, data)
objective = task.objective(experiment, base, data)
"""

from __future__ import annotations

from collections.abc import Mapping

from atoll.config import Experiment
from atoll.config.tasks import TaskName
from atoll.experiment.tasks.causal_lm import CAUSAL_LM
from atoll.experiment.tasks.classification import CLASSIFICATION
from atoll.experiment.tasks.kind import Task

__all__ = ["Task", "task_of"]

_TASKS: Mapping[TaskName, Task] = {
    "classification": CLASSIFICATION,
    "causal-lm": CAUSAL_LM,
}


def task_of(experiment: Experiment) -> Task:
    """The functions of the task that the file names."""
    return _TASKS[experiment.model.task]
