"""What no file shows by itself: a runtime that is not there, a cohort that clients cannot fill."""

from __future__ import annotations

import sys
from pathlib import Path

from atoll.config import Loaded, resolve
from atoll.core import Program
from atoll.data import FederatedData
from atoll.errors import ConfigError
from atoll.words import counted

__all__ = ["check_cohort", "check_late", "check_revision", "check_runtime"]

PLACES = "atoll.experiment.places"
"""The runtimes; they stand on a setup, and are imported by name."""


def check_runtime(loaded: Loaded) -> None:
    """Refuse a runtime that is not there, and arguments that it does not take."""
    call = loaded.experiment.federation.runtime
    resolve(call, package=PLACES, where=loaded.where)
    if call.name == "processes" and sys.platform == "win32":
        raise ConfigError(
            f"{loaded.where(call.path)}: runtime processes needs Linux or macOS; use inprocess"
        )


def check_cohort(loaded: Loaded, data: FederatedData) -> None:
    """Refuse a round that the clients who have rows cannot fill."""
    check_runtime(loaded)
    federation, population = loaded.experiment.federation, len(data.clients)
    asked = federation.clients_per_round
    if asked is not None and asked > population:
        raise ConfigError(
            f"{loaded.where('federation.clients_per_round')}: clients_per_round is {asked}, but "
            f"only {population} clients have rows; lower it"
        )
    cohort = federation.cohort(population)
    if federation.min_clients > cohort:
        share = federation.fraction_train
        why = "" if share is None else f" (fraction_train {share:g} of {population})"
        raise ConfigError(
            f"{loaded.where('federation.min_clients')}: min_clients is {federation.min_clients}, "
            f"but a round asks {counted(cohort, 'client')}{why}: no round would count; lower it, "
            "or ask more clients"
        )


def check_revision(loaded: Loaded) -> None:
    """Refuse a revision of a model that is not on the hub: it would change nothing."""
    model = loaded.experiment.model
    local = model.name_or_path.startswith("builtin:") or (
        Path(model.name_or_path).expanduser().is_dir()
    )
    if model.revision is not None and local:
        raise ConfigError(
            f"{loaded.where('model.revision')}: model.revision is {model.revision}, but "
            f"{model.name_or_path} is not on the hub: it has no revisions; remove model.revision"
        )


def check_late(loaded: Loaded, program: Program) -> None:
    """Refuse to fold late answers where nothing would make them count for less."""
    training = program.algorithms.get("train")
    if loaded.experiment.federation.late == "drop" or training is None:
        return
    if not training.aggregator.weighted:
        raise ConfigError(
            f"{loaded.where('federation.late')}: federation.late is fold, which weighs late "
            f"answers less, and aggregator '{training.aggregator.name}' ignores weights; use a "
            "mean, or set federation.late to drop"
        )
