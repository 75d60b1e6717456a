"""What a private run starts from, when that is not the base model alone, and what it has cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from atoll.accounting import altogether
from atoll.accounting.statement import UNITS
from atoll.config import Experiment, load
from atoll.errors import PrivacyError
from atoll.experiment.setup import Setup
from atoll.ledger import Entry
from atoll.ledger.read import read
from atoll.runs.budget import ledger_of
from atoll.runs.run_dir import RunDirectory

__all__ = ["Origin", "origin_of"]


@dataclass(frozen=True)
class Origin:
    """What is known of a run's start.

    releases: those that its model depends on.   unknown: whether there may be more than ledgers
    tell: of an adapter from somewhere, or one that was trained on other rows under no promise.
    """

    releases: tuple[Entry, ...] = ()
    unknown: bool = False

    @property
    def runs(self) -> frozenset[str]:
        """Whose releases they are."""
        return frozenset(one.run for one in self.releases)

    @property
    def steps(self) -> int:
        """How many they are."""
        return sum(one.release.steps for one in self.releases if one.release)

    def told(self) -> dict[str, Any] | None:
        """For run.json; None where a run starts from the base model alone."""
        if not self.releases and not self.unknown:
            return None
        lines = [one.model_dump(mode="json") for one in self.releases]
        return {"releases": lines, "unknown": self.unknown}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Origin:
        """As run.json has it."""
        found = record.get("starts_from") or {}
        lines = tuple(Entry.model_validate(one) for one in found.get("releases", ()))
        return cls(lines, found.get("unknown", False))


def origin_of(setup: Setup, run: RunDirectory) -> Origin:
    """What a private run starts from, as it was found when it began.

    Raises:
        PrivacyError: when that was trained on the same data, and promised nothing.
    """
    record = run.record()
    if record is not None:
        return Origin.of(record)
    if setup.protection is None and setup.rows is None:
        return Origin()
    return _start(setup, setup.experiment, setup.forked_from)


def _start(setup: Setup, experiment: Experiment, forked: Mapping[str, Any] | None) -> Origin:
    """The start of a run, of `setup` or of one before it."""
    if forked is not None:
        return _run(setup, RunDirectory(Path(forked["run"])))
    if experiment.adapter.name_or_path is None:
        return Origin()
    folder = Path(experiment.adapter.name_or_path).expanduser().resolve()
    run = RunDirectory(folder.parent)
    return Origin(unknown=True) if folder != run.adapter else _run(setup, run)


def _run(setup: Setup, run: RunDirectory) -> Origin:
    """What the model of a run has cost."""
    record, held = run.record(), run.path / "experiment.yaml"
    if record is None or not held.is_file():
        return Origin(unknown=True)
    experiment, own = load(held).experiment, setup.experiment.privacy
    before = Origin.of(record)
    if experiment.privacy.on and experiment.privacy.unit == own.unit:
        runs, told = before.runs | {record["id"]}, read(ledger_of(experiment, run.path))
        entries = () if told is None else tuple(one for one in told.once if one.run in runs)
        spent = altogether([one.release for one in entries if one.release], own.delta)
        if told is not None and math.isfinite(spent.epsilon):
            return Origin(entries, before.unknown)
    if record["fingerprints"]["data"] == setup.data.fingerprint or _same_place(setup, experiment):
        raise PrivacyError(
            f"the run would promise what does not hold: it starts from the model of {run.path}, "
            f"which was trained on the same data under no promise to {UNITS[own.unit]}; start from "
            "the base model (without --fork and adapter.name_or_path), or from a private run"
        )
    return replace(_start(setup, experiment, record["forked_from"]), unknown=True)


def _same_place(setup: Setup, other: Experiment) -> bool:
    """Whether rows come from one place, also where some came or went meanwhile."""
    pair = setup.experiment.data.path, other.data.path
    first, second = (Path(one).expanduser().resolve() for one in pair)
    return first == second
