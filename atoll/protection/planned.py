"""From the experiment file to what protects its clients, or why nothing could."""

from __future__ import annotations

from atoll.accounting import Spent
from atoll.config import Loaded
from atoll.data import FederatedData
from atoll.protection.cohorts import drawing_of
from atoll.protection.protection import Protection
from atoll.protection.rows import RowProtection
from atoll.protection.spread import Spread

__all__ = ["protection_of", "rows_of", "whole"]


def protection_of(loaded: Loaded, population: int) -> Protection | Spread | None:
    """The protection that the file asks for; None where it asks for none."""
    experiment = loaded.experiment
    if not experiment.privacy.on or experiment.privacy.unit != "client":
        return None
    drawing = drawing_of(experiment.privacy, experiment.federation, population)
    rounds = experiment.federation.num_rounds
    if experiment.privacy.mechanism in ("distributed", "local"):
        return Spread(experiment.privacy, drawing, rounds)
    return Protection(experiment.privacy, drawing, rounds)


def rows_of(loaded: Loaded, data: FederatedData) -> RowProtection | None:
    """The protection of single rows that the file asks for; None where it asks for none."""
    experiment = loaded.experiment
    if not experiment.privacy.on or experiment.privacy.unit != "example":
        return None
    counts = {name: count.train for name, count in data.counts.items()}
    if not any(counts.values()):  # nobody trains on what stands in for rows
        return None
    rounds = experiment.federation.num_rounds
    return RowProtection(experiment.privacy, experiment.train, counts, rounds)


def whole(found: Protection | Spread | RowProtection) -> Spent:
    """What all rounds come to; a run may have none."""
    if not found.releases:
        return found.spent([])
    return found.spent([found.released(found.noise_multiplier, found.releases)])
