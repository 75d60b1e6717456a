"""From the experiment file to what protects its clients, or why nothing could."""

from __future__ import annotations

from collections.abc import Iterator

from atoll.config import Experiment, Loaded
from atoll.data import FederatedData
from atoll.errors import ConfigError
from atoll.protection.cohorts import drawing_of
from atoll.protection.protection import Protection
from atoll.protection.rows import RowProtection
from atoll.protection.spread import Spread

__all__ = ["protection_of", "rows_of"]


def protection_of(loaded: Loaded, population: int) -> Protection | Spread | None:
    """The protection that the file asks for; None where it asks for none.

    Raises:
        ConfigError: with what else in the file would leave clients in the open.
    """
    experiment = loaded.experiment
    if not experiment.privacy.on or experiment.privacy.unit != "client":
        return None
    for key, why in _open(experiment):
        raise ConfigError(f"{loaded.where(key)}: {why}")
    drawing = drawing_of(experiment.privacy, experiment.federation, population)
    rounds = experiment.federation.num_rounds
    if experiment.privacy.mechanism in ("distributed", "local"):
        return Spread(experiment.privacy, drawing, rounds)
    return Protection(experiment.privacy, drawing, rounds)


def rows_of(loaded: Loaded, data: FederatedData) -> RowProtection | None:
    """The protection of single rows that the file asks for; None where it asks for none.

    Raises:
        ConfigError: with what else in the file would leave rows in the open.
    """
    experiment = loaded.experiment
    if not experiment.privacy.on or experiment.privacy.unit != "example":
        return None
    counts = {name: count.train for name, count in data.counts.items()}
    if not any(counts.values()):  # nobody trains on what stands in for rows
        return None
    for key, why in _open(experiment):
        raise ConfigError(f"{loaded.where(key)}: {why}")
    rounds = experiment.federation.num_rounds
    return RowProtection(experiment.privacy, experiment.train, counts, rounds)


def _open(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """Keys whose values would have something leave clients that no noise hides, and why."""
    if experiment.model.task == "regression":
        yield (
            "model.task",
            "model.task is regression, which scales labels by the moments of all clients' rows, "
            "and no noise hides those; under privacy cut the numbers into classes",
        )
    if experiment.train.class_weights == "balanced":
        yield (
            "train.class_weights",
            "train.class_weights is balanced, which counts all clients' labels, and no noise hides "
            "those counts; use balanced-per-client",
        )
