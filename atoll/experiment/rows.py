"""The rows of an experiment, as its file says."""

from __future__ import annotations

from atoll.config import Loaded, resolve
from atoll.config.tasks import TASKS
from atoll.data import FederatedData, load
from atoll.errors import ConfigError, DataError

__all__ = ["load_data"]


def load_data(loaded: Loaded) -> FederatedData:
    """The federation's data, partitioned as the file says.

    Raises:
        ConfigError: for arguments that the partition refuses.
        DataError: when rows cannot be read or labels do not fit.
    """
    section, facts = loaded.experiment.data, TASKS[loaded.experiment.model.task]
    partition = None
    if section.partition is not None:
        bound = resolve(section.partition, package="atoll.data.partition", where=loaded.where)
        try:
            partition = bound()
        except DataError as error:
            place = loaded.where(section.partition.path)
            raise ConfigError(f"{place}: {error}") from error
    return load(
        section.path,
        partition=partition,  # type: ignore[arg-type]
        columns=section.columns,
        # An empty map of labels: they are numbers.
        labels=() if facts.numbers else section.labels,
        holdout=section.holdout,
        seed=loaded.experiment.seed,
    )
