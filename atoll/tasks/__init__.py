"""What each task asks of rows and model, one file a task.

task = task_of(experiment)
base = task.base(experiment, data)
objective = task.objective(experiment, base, data)
"""

from __future__ import annotations

from collections.abc import Mapping

from atoll.config import Experiment
from atoll.config.tasks import TaskName
from atoll.tasks.causal_lm import CAUSAL_LM
from atoll.tasks.classification import CLASSIFICATION
from atoll.tasks.embedding import EMBEDDING
from atoll.tasks.image_classification import IMAGE_CLASSIFICATION
from atoll.tasks.kind import Task
from atoll.tasks.masked_lm import MASKED_LM
from atoll.tasks.multi_label import MULTI_LABEL
from atoll.tasks.preference import PREFERENCE
from atoll.tasks.regression import REGRESSION
from atoll.tasks.token_classification import TOKEN_CLASSIFICATION

__all__ = ["Task", "task_of"]

_TASKS: Mapping[TaskName, Task] = {
    "classification": CLASSIFICATION,
    "causal-lm": CAUSAL_LM,
    "masked-lm": MASKED_LM,
    "token-classification": TOKEN_CLASSIFICATION,
    "regression": REGRESSION,
    "multi-label-classification": MULTI_LABEL,
    "image-classification": IMAGE_CLASSIFICATION,
    "embedding": EMBEDDING,
    "preference": PREFERENCE,
}


def task_of(experiment: Experiment) -> Task:
    """The functions of the task that the file names."""
    return _TASKS[experiment.model.task]
