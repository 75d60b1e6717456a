"""What a run's ledger says of its promise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll.accounting import Event, Shared
from atoll.audit.findings import Books, Claim
from atoll.config.privacy import Privacy
from atoll.errors import PrivacyError
from atoll.ledger.read import read
from atoll.runs.account import LEDGER

__all__ = ["Kept", "kept_of"]


@dataclass(frozen=True)
class Kept:
    """books: what is found.   releases: of the run; none where they could not be read."""

    books: Books
    releases: Sequence[Event] = ()

    @property
    def noise(self) -> float | None:
        """The noise multiplier with which as many sums as there were, all alike, would show as
        much; None where clients added no noise to sums.

        A sum of more clients than it had to have has more noise.
        """
        sums = [one for one in self.releases if isinstance(one, Shared)]
        sums = [one for one in sums if one.mechanism != "gaussian"]
        shown = sum(
            one.steps * one.norm**2 / (one.sigma**2 * (one.survivors - one.colluding))
            for one in sums
        )
        return math.sqrt(sum(one.steps for one in sums) / shown) if sums else None


def kept_of(
    run: Path, identity: str, before: Iterable[str], settings: Privacy, claim: Claim
) -> Kept:
    """Hold a claim against the ledger that the run wrote.

    identity: of the run, in its ledger.   before: those of the runs whose model it goes on from.
    settings: of its experiment file.
    """
    named = settings.ledger
    folder = run / LEDGER if named is None else Path(named).expanduser()
    try:
        told = read(folder)
    except PrivacyError as error:
        return Kept(Books(wrong=str(error)))
    if told is None and named is not None:
        return Kept(Books(unread=f"privacy.ledger is {named}, and there is none here"))
    if told is None:
        return Kept(Books(wrong=f"{folder} is empty, where each release is written before it is"))
    releases = [one for own, one in told.releases if own == identity]
    epsilon = told.spent(claim.delta, identity, *before).epsilon
    found = None if math.isinf(epsilon) else epsilon
    return Kept(Books(found, _other(found, claim)), releases)


def _other(found: float | None, claim: Claim) -> str:
    """How what is claimed differs from what releases come to; empty where it does not."""
    same = found == claim.epsilon
    if found is not None and claim.epsilon is not None:
        same = math.isclose(found, claim.epsilon, rel_tol=1e-3, abs_tol=1e-3)
    if same:
        return ""
    said, comes = (
        "no bound" if one is None else f"epsilon {one:.4g}" for one in (claim.epsilon, found)
    )
    return f"by its ledger its releases come to {comes}, and its summary.json says {said}"
