"""An audit of a finished run: what an attacker would learn, part by part."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from atoll.audit.claim import EPSILON
from atoll.audit.findings import AUDIT, Findings
from atoll.audit.parts import mechanism_part, membership_part, secrets_part, server_part
from atoll.audit.refuting import refuting
from atoll.audit.subject import Subject, Uncovered, subject_of
from atoll.disk.files import write_json
from atoll.errors import PrivacyError
from atoll.trained.load_run import TrainedRun

__all__ = ["audited", "written"]

_PARTS: dict[str, tuple[str, Callable[[Subject], Any]]] = {
    "server": ("what a server sees of uploads", server_part),
    "secrets": ("how much of planted secrets the model gives away", secrets_part),
    "membership": ("whether losses tell who was trained on", membership_part),
    "mechanism": ("whether the noise is there", mechanism_part),
}


def audited(run: TrainedRun, *, say: Callable[[str], None]) -> Findings:
    """Measure what a run gives away; `say` hears what is being done.

    Raises:
        DataError: when no client has a row here.
    """
    begun, subject = time.monotonic(), subject_of(run)
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for number, (name, (what, measure)) in enumerate(_PARTS.items(), start=1):
        say(f"{number} of {len(_PARTS)}: {what}")
        try:
            found[name] = measure(subject)
        except (Uncovered, PrivacyError) as why:
            # An error of privacy ends with the exit code of a promise that does not hold.
            missing[name] = str(why)
    claim, ledger = subject.claim, subject.kept.books
    refuted = () if claim is None else refuting(claim, found.get("mechanism"), ledger)
    return Findings(
        run=run.path.resolve().name,
        task=run.setup.experiment.model.task,
        method=run.setup.experiment.adapter.method,
        clients=len(run.setup.data.clients),
        epsilon=None if claim is None else claim.epsilon,
        delta=None if claim is None else claim.delta,
        compared=EPSILON if claim is None or claim.epsilon is None else claim.epsilon,
        sees=_sees(subject),
        changed=run.changed,
        seconds=round(time.monotonic() - begun, 3),
        ledger=None if claim is None else ledger,
        refuted=list(refuted),
        missing=missing,
        **found,
    )


def _sees(subject: Subject) -> str:
    privacy = subject.loaded.experiment.privacy
    if privacy.mechanism == "distributed":
        return "noisy"
    return "sum" if privacy.secure_aggregation else "client"


def written(run: TrainedRun, findings: Findings) -> None:
    """Put the findings beside the run's other files."""
    write_json(run.path / AUDIT, asdict(findings))
