"""What no file shows by itself: a runtime that is not there, a cohort that clients cannot fill."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from atoll.config import Loaded, resolve
from atoll.core import Program
from atoll.data import FederatedData
from atoll.errors import ConfigError
from atoll.protection import check_usual
from atoll.words import counted

__all__ = ["check_cohort", "check_late", "check_program", "check_revision", "check_runtime"]

PLACES = "atoll.experiment.places"
"""The runtimes; they stand on a setup, and are imported by name."""
FEW = 5
"""Groups from which on a rule over their sums is worth its price."""


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
    check_usual(loaded, population)


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


def check_program(
    loaded: Loaded, program: Program, data: FederatedData, *, note: Callable[[str], None]
) -> None:
    """Refuse servers that lack something, and rounds that count with fewer answers than the
    aggregator needs; tell what it does not cover.

    Raises:
        AtollError: names what is missing, or both numbers.
    """
    if data.whole:
        for algorithm in program.algorithms.values():
            algorithm.server.ready()
    _check_aggregator(loaded, program, data, note)


def _check_aggregator(
    loaded: Loaded, program: Program, data: FederatedData, note: Callable[[str], None]
) -> None:
    training, federation = program.algorithms.get("train"), loaded.experiment.federation
    if training is None or training.aggregator.linear:
        return
    name, least = training.aggregator.name, training.aggregator.least
    place = loaded.where("federation.aggregator")
    needs = f"aggregator '{name}' needs the updates of {counted(least, 'client')} as it is set"
    cohort = federation.cohort(len(data.clients))
    if data.whole and cohort < least:
        raise ConfigError(
            f"{place}: {needs}, but a round asks {cohort}; ask more clients, or lower what it is "
            "set to"
        )
    if federation.min_clients < least:
        raise ConfigError(
            f"{place}: {needs}, but federation.min_clients is {federation.min_clients}, with which "
            f"a round counts; set it to {least}"
        )
    hidden = loaded.experiment.privacy.secure_aggregation
    if data.whole and hidden and training.aggregator.rule is not None:
        _tell_groups(training.aggregator.group, cohort, note)
    solved = [each.name for each in program.algorithms.values() if each.kind == "exchange"]
    if solved:
        note(
            f"aggregator '{name}' limits what one client does to the adapter, and not to the head, "
            f"which is solved from everybody's sums ({solved[0]}); with adapter.head train it is "
            "part of the update"
        )


def _tell_groups(size: int, cohort: int, note: Callable[[str], None]) -> None:
    """How large secure sums are that a rule compares, and how many of them there are."""
    groups = cohort // size
    few = f"; {FEW} outvote a false one better: ask {FEW * size} clients or more"
    sums = f"{counted(groups, 'secure sum')} of {size} clients or more"
    note(
        f"a round has {sums}, and a false client spoils the one that it is in"
        f"{few if groups < FEW else ''}"
    )
