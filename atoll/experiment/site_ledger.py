"""What a site writes down of the privacy that runs spend, and when it takes part no longer."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from atoll.accounting import Event
from atoll.accounting.statement import finite
from atoll.core import Task
from atoll.errors import PolicyError
from atoll.ledger import Entry, Ledger
from atoll.policy import Policy, too_little_noise
from atoll.protection import Protection, RowProtection, Spread
from atoll.protection.summed import root_of

__all__ = ["Asked", "SiteLedger", "asked_for"]

RULE, ROWS = "privacy", "privacy-rows"
Hidden = Protection | Spread | RowProtection
PLANNED = "planned"


class Asked(NamedTuple):
    """What a site is asked to train for.

    question: tells questions of one exchange apart, where each answer would be a release; the same
    question has the same answer.
    """

    round: int
    exchange: int
    question: str = "asked"


def asked_for(task: Task, client: str, protection: Hidden) -> Asked:
    """What a site is asked for by a task of training."""
    at, question = task.context, "asked"
    if isinstance(protection, RowProtection) or protection.settings.mechanism == "local":
        # Another question in the same exchange would have another answer, with other noise.
        question = f"asked {root_of(task.broadcast(client)).hex()[:16]}"
    return Asked(at.round, at.exchange, question)


class SiteLedger:
    """The ledger of a site, over all runs that it takes part in.

    A site hears of the rounds in which it is asked, and that it is spared others is part of what
    hides it. So a run is written down whole, all its rounds, before the site first trains in it; a
    round for which it is asked a second time is one release more.
    """

    def __init__(self, state: Path, site: str, policy: Policy) -> None:
        self._state, self._data, self._rules = state, f"client {site}", policy.privacy

    def _opened(self, protection: Hidden) -> AbstractContextManager[Ledger]:
        """Rows and the whole client are counted apart."""
        rows = isinstance(protection, RowProtection)
        return Ledger.opened(self._state / (ROWS if rows else RULE), data=self._data)

    def check(self, run: str, protection: Hidden) -> None:
        """Refuse a run whose noise is too little, or that would spend more than is left.

        Raises:
            PolicyError: with both numbers.
            PrivacyError: when the ledger is not as it was written.
        """
        with self._opened(protection) as ledger:
            self._check(ledger, run, protection, _left(ledger, run, protection))

    def write(self, run: str, protection: Hidden, asked: Asked) -> float | None:
        """Write down what a site is asked for, as far as it is not yet.

        Returns the epsilon of all runs so far, None where nothing bounds it.

        Raises:
            PolicyError: as `check`, and for a round that the run has not.
        """
        number, exchange, question = asked
        if not 1 <= number <= protection.rounds:
            raise PolicyError(
                RULE, f"round {number} is asked for, and the run has {protection.rounds}"
            )
        with self._opened(protection) as ledger:
            entries = [line.entry for line in ledger.told.lines if line.entry.run == run]
            before = {(one.exchange, one.noise) for one in entries if one.round == number}
            if (exchange, question) in before:
                return finite(ledger.told.spent(protection.delta).epsilon)
            left = _left(ledger, run, protection)
            _check_turn(protection, number, {one.round for one in entries} - {0})
            if before:
                left = protection.release
            self._check(ledger, run, protection, left)
            if left is not None and not before:
                _write(ledger, protection, Entry(
                    run=run, round=0, exchange=0, noise=f"{PLANNED} {protection.rounds}",
                    release=left,
                ))  # fmt: skip
            release = None if not before else left
            return _write(ledger, protection, Entry(
                run=run, round=number, exchange=exchange, noise=question, release=release,
            ))  # fmt: skip

    def _check(self, ledger: Ledger, run: str, protection: Hidden, more: Event | None) -> None:
        least = self._rules.min_noise_multiplier if self._rules.required else None
        if why := too_little_noise(least, protection.noise_multiplier):
            raise PolicyError(RULE, why)
        if more is None:
            return
        most, delta = self._rules.lifetime_epsilon, protection.delta
        promised, noise = protection.settings.epsilon, protection.noise_multiplier
        own, life = ledger.after(more, delta, run).epsilon, ledger.after(more, delta).epsilon
        if promised is not None and own > promised:
            raise PolicyError(
                RULE,
                f"the run promises epsilon {promised:g}, and with a noise multiplier of "
                f"{noise:g} it spends {own:.4g}",
            )
        if most is not None and life > most:
            raise PolicyError(
                RULE,
                f"with this run all runs here spend epsilon {life:.4g}; this site allows {most:g}",
            )


def _check_turn(protection: Hidden, number: int, before: Collection[int]) -> None:
    """Refuse a round of noise in common that the site has been asked for, or that comes too soon:
    the noise was made for clients that take turns."""
    if protection.correlated is None or not before:
        return
    apart = protection.correlated.strategy.participation.separation
    near = min(before, key=lambda one: abs(one - number))
    if near == number:
        raise PolicyError(
            RULE, f"round {number} is asked for twice, and its noise is taken back later"
        )
    if abs(near - number) < apart:
        raise PolicyError(
            RULE,
            f"round {number} is asked for after round {near}, and the noise was made for clients "
            f"that come again after {apart} rounds at the earliest",
        )


def _left(ledger: Ledger, run: str, protection: Hidden) -> Event | None:
    """What a run will release beyond what is written down of it as planned."""
    release, known = protection.release.model_copy(update={"steps": 1}), 0
    for entry in (line.entry for line in ledger.told.lines):
        if entry.run == run and entry.noise.startswith(PLANNED) and entry.release is not None:
            same = entry.release.model_copy(update={"steps": 1}) == release
            known += entry.release.steps if same else 0
    more = protection.releases - known
    return protection.released(protection.noise_multiplier, more) if more > 0 else None


def _write(ledger: Ledger, protection: Hidden, entry: Entry) -> float | None:
    return finite(ledger.write(entry, protection.delta).epsilon)
