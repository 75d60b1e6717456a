"""What a run spends of privacy, release by release."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any

from atoll.accounting import Event
from atoll.accounting.statement import finite
from atoll.core import Position, Report
from atoll.errors import PrivacyError
from atoll.ledger import Entry, Ledger
from atoll.noise import Secret
from atoll.protection import Protection, RowProtection, Spread
from atoll.words import counted

__all__ = ["TOGETHER", "TRAIN", "Hiding", "Spending", "left", "together"]

Hiding = Protection | RowProtection | Spread
TRAIN, TOGETHER = "train", "all "


@dataclass(frozen=True)
class Spending:
    """The releases of a run, as they are written down, and what they may come to.

    run: by which the ledger knows it.   before: the runs whose releases its model goes on from.
    unknown: whether it starts from an adapter of which no ledger tells.
    """

    run: str
    before: frozenset[str]
    unknown: bool
    protection: Hiding
    ledger: Ledger
    secret: Secret

    def begins(self, rounds: int) -> None:
        """Look at the ledger before the rounds after so many.

        Raises:
            PrivacyError: when not one of them fits, or the earlier ones are not written down.
        """
        known = {one.round for one in self.ledger.told.once if one.run == self.run}
        lost = set(range(1, rounds + 1)) - known
        # Noise in common is one release, of no round.
        if lost and not (known and together(self.protection)):
            raise PrivacyError(
                f"the ledger has no release of {counted(len(lost), 'round')} of this run, of which "
                f"{counted(rounds, 'round')} are over: what was spent is no longer known; put the "
                "ledger back as it was last"
            )
        if known:
            return
        if self.protection.rounds and (budget := self.exhausted()):
            raise PrivacyError(
                f"one round would spend more than {budget} with a noise multiplier of "
                f"{self.protection.noise_multiplier:g}; nobody was asked: raise one of them, or "
                "leave noise_multiplier out, so that it is solved"
            )

    def asking(self, number: int, exchange: int) -> None:
        """Write down the release of a round, before its cohort is asked.

        Raises:
            PrivacyError: when it would cross a budget.
        """
        shared, release = together(self.protection), self.protection.release
        if shared is not None:
            entry = Entry(run=self.run, round=0, exchange=0, noise=shared, release=release)
        else:
            name = self.secret.name(exchange)
            entry = Entry(
                run=self.run, round=number, exchange=exchange, noise=name, release=release
            )
        known = self.ledger.told.has(entry)
        if not known and (budget := self.exhausted()):
            raise PrivacyError(f"round {number} would spend more than {budget}; nobody was asked")
        if not known or shared is None:
            self.ledger.write(entry, self.protection.delta)

    def happened(self, report: Report) -> None:
        """Write down what a round did release: a sum of more clients than it had to have has more
        noise."""
        if not isinstance(self.protection, Spread):
            return
        for one in report.exchanges:
            found = self.protection.happened(one) if one.algorithm == TRAIN else None
            if found is not None:
                at = max(one.folded.values())
                name = self.secret.name(at)
                self.ledger.write(
                    Entry(run=self.run, round=report.round, exchange=at, noise=name, release=found),
                    self.protection.delta,
                )

    def counted(self, position: Position) -> None:
        """Forget the noise of rounds that are on the disk."""
        if position.exchanges:
            self.secret.commit(position.exchanges - 1)

    def stops(self, position: Position) -> str | None:
        """The budget that the round after `position` would cross; None where there is room, or
        where that round was asked already, and is paid for."""
        asked = (one for one in self.ledger.told.once
                 if one.run == self.run and one.exchange >= position.exchanges)  # fmt: skip
        paid = any(one.noise == self.secret.name(one.exchange) for one in asked)
        return None if paid else self.exhausted()

    def exhausted(self) -> str | None:
        """The budget that one more round would cross; None where there is room."""
        settings, release = self.protection.settings, self.protection.release
        delta = self.protection.delta
        if together(self.protection) is not None and self._releases({self.run}):
            return None
        for key, most, run in (
            ("epsilon", settings.epsilon, self.run),
            ("lifetime_epsilon", settings.lifetime_epsilon, None),
        ):
            if most is not None and self.ledger.after(release, delta, run).epsilon > most:
                return f"privacy.{key} {most:g}"
        return None

    def epsilon(self) -> float | None:
        """What all releases come to that the model depends on; None where nothing bounds it."""
        return finite(self.ledger.told.spent(self.protection.delta, *self._model).epsilon)

    def statement(self) -> dict[str, Any]:
        """All that this ε means, beside what this run alone spent, and all runs of its ledger."""
        told, delta = self.ledger.told, self.protection.delta
        model = told.spent(delta, *self._model)
        return {
            "adjacency": model.adjacency,
            "accountant": model.accountant,
            **self.protection.statement(),
            "readers_epsilon": finite(model.readers),
            "releases": sum(one.steps for one in self._releases(self._model)),
            "run_epsilon": finite(told.spent(delta, self.run).epsilon),
            "lifetime_epsilon": finite(told.spent(delta).epsilon),
            "unknown_start": self.unknown,
        }

    @property
    def _model(self) -> frozenset[str]:
        """The runs that the model depends on."""
        return self.before | {self.run}

    def _releases(self, runs: Container[str]) -> list[Event]:
        return [one for own, one in self.ledger.told.releases if own in runs]


def together(protection: Hiding) -> str | None:
    """The name of the one release of a run whose rounds share noise; None where each has its own.

    What its noise was planned for is part of it: under another plan it would be another release.
    """
    mechanism = protection.correlated
    if mechanism is None:
        return None
    sensitivity = mechanism.strategy.sensitivity
    return f"{TOGETHER}{counted(protection.rounds, 'round')}, sensitivity {sensitivity:.6g}"


def left(protection: Hiding, released: Iterable[Event]) -> Event | None:
    """What a run will still release, by its plan; None where that is nothing."""
    more = protection.releases - sum(one.steps for one in released)
    return protection.released(protection.noise_multiplier, more) if more > 0 else None
