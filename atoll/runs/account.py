"""What a run spends of privacy: written down before anyone is asked, never beyond its budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.core import Failure, Position, Reply, Report, Runtime, Task
from atoll.errors import PrivacyError
from atoll.experiment.setup import Setup
from atoll.ledger import Entry, Ledger
from atoll.noise import Secret
from atoll.protection import Protection, RowProtection, Spread
from atoll.runs.run_dir import RunDirectory

__all__ = ["FREE", "LEDGER", "SECRET", "Account", "account_of"]

Hiding = Protection | RowProtection | Spread
LEDGER, SECRET = "privacy", ".secret"
TRAIN, TOGETHER = "train", "all rounds"


@dataclass(frozen=True)
class Account:
    """What a run does about its privacy.

    asking: a round is about to ask its cohort: (round, exchange) -> None, or it raises.
    happened: a round is released.   counted: it is on the disk.   ended: the run is complete.
    epsilon: what the run has spent; None where nothing bounds it.
    exhausted: whether one more round would cross the budget.
    statement: all that this ε means; None where nothing was promised.
    """

    asking: Callable[[int, int], None] = lambda number, exchange: None
    happened: Callable[[Report], None] = lambda report: None
    counted: Callable[[Position], None] = lambda position: None
    ended: Callable[[], None] = lambda: None
    epsilon: Callable[[], float | None] = lambda: None
    exhausted: Callable[[], bool] = lambda: False
    statement: Callable[[], dict[str, Any] | None] = lambda: None

    def over(self, runtime: Runtime) -> Runtime:
        """The runtime, which asks nobody to train before that is written down."""
        return _Accounted(runtime, self)


FREE = Account()
"""That of a run which promises nothing."""


@contextmanager
def account_of(setup: Setup, directory: RunDirectory, position: Position) -> Iterator[Account]:
    """The account of a run, which goes on at `position`.

    Raises:
        PrivacyError: when the ledger or the secret is not as it was written.
    """
    protection = setup.protection or setup.rows
    if protection is None:
        yield FREE
        return
    protection.check()
    named = setup.experiment.privacy.ledger
    path, record = directory.path, directory.record()
    assert record is not None, "a run that has begun has its run.json"
    folder = path / LEDGER if named is None else Path(named).expanduser()
    # Rows and clients are counted apart.
    data = setup.data.fingerprint if setup.rows is None else f"rows of {setup.data.fingerprint}"
    with (
        Ledger.opened(folder, data=data) as ledger,
        protection.vault.opened(path / SECRET) as secret,
    ):
        if secret.next > position.exchanges and protection.correlated is not None:
            raise PrivacyError(
                f"the run in {path} fell back behind rounds that it released, and rounds whose "
                "noise is taken back later (privacy.mechanism: blt) cannot be released twice; put "
                "the last checkpoint back, or start a new run"
            )
        if secret.next > position.exchanges:
            # It fell back behind what it released: what is released there now has other noise.
            secret.anew(position.exchanges)
        account = _account(record["id"], protection, ledger, secret)
        if position.round < 1 <= protection.rounds and account.exhausted():
            raise PrivacyError(
                f"one round would spend more than privacy.epsilon {protection.settings.epsilon:g} "
                f"with a noise multiplier of {protection.noise_multiplier:g}; nobody was asked: "
                "raise one of them, or leave noise_multiplier out, so that it is solved"
            )
        account.counted(position)
        yield account


def _account(run: str, protection: Hiding, ledger: Ledger, secret: Secret) -> Account:
    delta, limit = protection.settings.delta, protection.settings.epsilon

    together = protection.settings.mechanism == "blt"

    def exhausted() -> bool:
        begun = together and any(own == run for own, _ in ledger.told.releases)
        if limit is None or begun:
            return False
        return ledger.after(protection.release, delta, run).epsilon > limit

    def asking(number: int, exchange: int) -> None:
        entry = Entry(
            run=run,
            round=0 if together else number,
            exchange=0 if together else exchange,
            noise=TOGETHER if together else secret.name(exchange),
            release=protection.release,
        )
        if not ledger.told.has(entry) and exhausted():
            raise PrivacyError(
                f"round {number} would spend more than privacy.epsilon {limit:g}; nobody was asked"
            )
        if not (together and ledger.told.has(entry)):
            ledger.write(entry, delta)

    def happened(report: Report) -> None:
        """A sum of more clients than it had to have has more noise."""
        if not isinstance(protection, Spread):
            return
        for one in report.exchanges:
            found = protection.happened(one) if one.algorithm == TRAIN else None
            if found is not None:
                exchange = max(one.folded.values())
                entry = Entry(
                    run=run, round=report.round, exchange=exchange, noise=secret.name(exchange),
                    release=found,
                )  # fmt: skip
                ledger.write(entry, delta)

    def counted(position: Position) -> None:
        if position.exchanges:
            secret.commit(position.exchanges - 1)

    def epsilon() -> float | None:
        return _bounded(ledger.told.spent(delta, run).epsilon)

    def statement() -> dict[str, Any]:
        own, life = ledger.told.spent(delta, run), ledger.told.spent(delta)
        return {
            **protection.statement(),
            "adjacency": "zero-out" if together else own.adjacency,
            "accountant": own.accountant,
            "readers_epsilon": None if own.readers is None else _bounded(own.readers),
            "releases": sum(one.steps for own, one in ledger.told.releases if own == run),
            "lifetime_epsilon": _bounded(life.epsilon),
        }

    return Account(asking, happened, counted, secret.erase, epsilon, exhausted, statement)


def _bounded(epsilon: float) -> float | None:
    return None if math.isinf(epsilon) else epsilon


@dataclass(frozen=True)
class _Accounted:
    inner: Runtime
    account: Account

    @property
    def roster(self) -> tuple[str, ...]:
        return self.inner.roster

    def call(self, tasks: Sequence[Task], clients: Sequence[str]) -> Iterator[Reply | Failure]:
        for task in tasks:
            if task.algorithm == TRAIN:
                self.account.asking(task.context.round, task.context.exchange)
        yield from self.inner.call(tasks, clients)
