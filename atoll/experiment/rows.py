"""The rows of an experiment, as its file says."""

from __future__ import annotations

from dataclasses import replace

from atoll.config import Experiment, Loaded, resolve
from atoll.config.tasks import TASKS
from atoll.data import FederatedData
from atoll.data.clients import Options
from atoll.data.loading import load_as
from atoll.data.moments import Moments
from atoll.errors import ConfigError, DataError

__all__ = ["UNNAMED", "check_named", "load_data", "scaled"]

UNNAMED = (
    "data.labels is missing, and under privacy the names of labels are not collected from clients, "
    "since that of a single row would show in the model; list all that rows may have, as in "
    "labels: [complaint, question]"
)


def load_data(loaded: Loaded) -> FederatedData:
    """The federation's data, partitioned as the file says.

    Raises:
        ConfigError: for arguments that the partition refuses, or labels that have to be named.
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
    closed = _needs_names(loaded.experiment)
    # An empty map of labels: they are numbers.
    labels = () if facts.numbers else section.labels
    seed = loaded.experiment.seed
    options = Options(section.columns, section.holdout, seed, labels, declared=closed)
    data = load_as(section.path, options, partition)  # type: ignore[arg-type]
    if closed and data.collected:
        raise ConfigError(f"{loaded.where('data')}: {UNNAMED}")
    return data


def scaled(experiment: Experiment, data: FederatedData) -> FederatedData:
    """The data, whose labels are scaled as the file says rather than by what they are."""
    told = experiment.data.label_scale
    if told is None:
        return data
    return replace(data, moments=Moments(1, told.mean, told.deviation**2))


def check_named(loaded: Loaded) -> None:
    """Refuse a file without the names of labels, which none of its clients will tell.

    Raises:
        ConfigError: says what to write.
    """
    if _needs_names(loaded.experiment):
        raise ConfigError(f"{loaded.where('data')}: {UNNAMED}")


def _needs_names(experiment: Experiment) -> bool:
    facts = TASKS[experiment.model.task]
    named = facts.head and not facts.numbers
    return experiment.privacy.hides and named and experiment.data.labels is None
