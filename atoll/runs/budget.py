"""The ledger of a run, and whether what the run plans fits what may be spent, before it begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from atoll.accounting import Event, Release
from atoll.accounting.statement import UNITS
from atoll.config import Experiment, dump
from atoll.errors import PrivacyError
from atoll.experiment.setup import Setup
from atoll.experiment.standing import look
from atoll.ledger import Entry
from atoll.ledger.read import read
from atoll.runs.run_dir import RunDirectory
from atoll.runs.spending import TOGETHER, Hiding, left, together
from atoll.words import counted

__all__ = ["LEDGER", "check_plan", "data_of", "ledger_of"]

LEDGER = "privacy"
ROWS = "rows of "
"""Before the fingerprint in a ledger of rows: these and clients are counted apart."""


def ledger_of(experiment: Experiment, run: Path) -> Path:
    """Where the run in a directory writes down what it releases."""
    named = experiment.privacy.ledger
    return run / LEDGER if named is None else Path(named).expanduser()


def data_of(setup: Setup, folder: Path, note: Callable[[str], None]) -> str:
    """Whom the ledger in a folder is of: where it stands already, those with whom it began.

    Rows come and go, and people stay: what was spent counts on.

    Raises:
        PrivacyError: when it counts something else than this run hides.
    """
    data, privacy = setup.data.fingerprint, setup.experiment.privacy
    own, told = data if setup.rows is None else f"{ROWS}{data}", read(folder)
    if told is None or told.begin.data == own:
        return own
    theirs = told.begin.data
    rows, site = theirs.startswith(ROWS), theirs.startswith("client ")
    if site or rows != own.startswith(ROWS):
        counts = f"what {theirs} took part in" if site else UNITS["example" if rows else "client"]
        raise PrivacyError(
            f"the ledger in {folder} counts {counts}, and this run hides {UNITS[privacy.unit]} "
            f"(privacy.unit is {privacy.unit}): these do not add up; set privacy.ledger to a "
            "folder of their own"
        )
    note(f"the ledger in {folder} began with other rows than there are now; what was spent on "
         "those counts on. For other people set privacy.ledger to another folder")  # fmt: skip
    return theirs


def check_plan(
    setup: Setup, run: RunDirectory, before: Sequence[Entry], note: Callable[[str], None]
) -> None:
    """Refuse what a run plans, before it begins or goes on; `note` hears what is counted with it.

    before: releases of those runs whose model it starts from.

    Raises:
        PrivacyError: when its noise was made for another plan, or a budget does not hold it.
    """
    protection, record = setup.protection or setup.rows, run.record()
    if protection is None:
        return
    folder = ledger_of(setup.experiment, run.path)
    data_of(setup, folder, note)
    told = read(folder)
    known = () if told is None else told.once
    own = [one for one in known if record is not None and one.run == record.get("id")]
    _check_shared(protection, own, run)
    _check_solved(setup, protection, own, run)
    others = [one for one in known if one not in own]
    others += [one for one in before if one not in others]
    _check_life(protection, others, own, note)


def _check_shared(protection: Hiding, own: Sequence[Entry], run: RunDirectory) -> None:
    name = together(protection)
    for one in own if name is not None else ():
        if one.noise != name:
            then, now = (str(noise).removeprefix(TOGETHER) for noise in (one.noise, name))
            raise PrivacyError(
                f"the noise of the run in {run.path} was planned for {then}, and not for {now}: "
                "rounds that take noise back (privacy.mechanism: blt) cannot become more or fewer; "
                "set federation.num_rounds to what it was, or go on from the run's model with "
                "--fork, which counts both"
            )


def _check_solved(
    setup: Setup, protection: Hiding, own: Sequence[Entry], run: RunDirectory
) -> None:
    """Rounds that are over keep the noise that was solved for fewer."""
    settings, released = protection.settings, _events(own)
    if settings.noise_multiplier is not None or settings.epsilon is None:
        return
    now, more = _noise(protection.release), left(protection, released)
    if more is None or all(_noise(one) == now for one in released):
        return
    found, standing = protection.spent([*released, more]), look(run.path, dump(setup.experiment))
    if found.epsilon > settings.epsilon and standing.state != "other":
        changes = f" ({standing.changes})" if standing.changes else ""
        raise PrivacyError(
            f"the noise of the run in {run.path} was solved from privacy.epsilon "
            f"{settings.epsilon:g} for fewer rounds{changes}, and those that were released cannot "
            f"get more of it: all would come to epsilon {found.epsilon:.4g}; set "
            "federation.num_rounds to what it was, or go on from the run's model with --fork, "
            "which counts both"
        )


def _check_life(
    protection: Hiding, others: Sequence[Entry], own: Sequence[Entry], note: Callable[[str], None]
) -> None:
    so_far, more = _events([*others, *own]), left(protection, _events(own))
    most = protection.settings.lifetime_epsilon
    if more is None or (most is None and not others):
        return
    now, then = (protection.spent(found).epsilon for found in (so_far, [*so_far, more]))
    if most is not None and then > most:
        raise PrivacyError(
            f"all {protection.rounds} rounds would take the ledger from epsilon {now:.4g} to "
            f"{then:.4g}, above privacy.lifetime_epsilon {most:g}; nobody was asked: plan fewer "
            "rounds, more noise or a smaller privacy.epsilon, or allow more"
        )
    if others:
        runs = counted(len({one.run for one in others}), "other run")
        note(f"the ledger counts {runs} beside this one: epsilon {now:.4g} so far, {then:.4g} "
             "after all rounds of this one")  # fmt: skip


def _events(entries: Sequence[Entry]) -> list[Event]:
    return [one.release for one in entries if one.release is not None]


def _noise(event: Event) -> float:
    return event.noise_multiplier if isinstance(event, Release) else event.sigma
