"""What a run does about its privacy: written down before anyone is asked, never over a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atoll.core import Failure, Position, Reply, Report, Runtime, Task
from atoll.errors import PrivacyError
from atoll.experiment.setup import Setup
from atoll.ledger import Ledger
from atoll.noise import Secret
from atoll.protection.speaking import SPEAKING, step_of
from atoll.runs.budget import LEDGER, data_of, ledger_of
from atoll.runs.origin import Origin
from atoll.runs.run_dir import RunDirectory
from atoll.runs.spending import TRAIN, Hiding, Spending

__all__ = ["FREE", "LEDGER", "SECRET", "Account", "account_of"]

SECRET = ".secret"


@dataclass(frozen=True)
class Account:
    """What a run does about its privacy.

    asking: a round begins, and is about to ask its cohort: (round, exchange) -> None, or it raises.
    happened: a round is released.   counted: it is on the disk.   ended: the run is complete.
    epsilon: what was spent of those on whose rows the model depends; None where nothing bounds it.
    stops: the budget that the round after a position would cross; None where there is room.
    statement: all that this ε means; None where nothing was promised.
    """

    asking: Callable[[int, int], None] = lambda number, exchange: None
    happened: Callable[[Report], None] = lambda report: None
    counted: Callable[[Position], None] = lambda position: None
    ended: Callable[[], None] = lambda: None
    epsilon: Callable[[], float | None] = lambda: None
    stops: Callable[[Position], str | None] = lambda position: None
    statement: Callable[[], dict[str, Any] | None] = lambda: None

    def over(self, runtime: Runtime) -> Runtime:
        """The runtime, which asks nobody anything of a round before that is written down."""
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
    path, record = directory.path, directory.record()
    assert record is not None, "a run that has begun has its run.json"
    folder, start = ledger_of(setup.experiment, path), Origin.of(record)
    with (
        Ledger.opened(folder, data=data_of(setup, folder, lambda text: None)) as ledger,
        protection.vault.opened(path / SECRET) as secret,
    ):
        _fall_back(path, protection, secret, position)
        for entry in start.releases:
            if not ledger.told.has(entry):
                ledger.write(entry, protection.delta)
        one = Spending(record["id"], start.runs, start.unknown, protection, ledger, secret)
        one.begins(position.round)
        one.counted(position)
        yield Account(
            one.asking, one.happened, one.counted, secret.erase, one.epsilon, one.stops,
            one.statement,
        )  # fmt: skip


def _fall_back(path: Path, protection: Hiding, secret: Secret, position: Position) -> None:
    """Where a run fell back behind what it released, what is released there now has other noise."""
    if secret.next <= position.exchanges:
        return
    if protection.correlated is not None:
        raise PrivacyError(
            f"the run in {path} fell back behind rounds that it released, and rounds whose noise "
            "is taken back later (privacy.mechanism: blt) cannot be released twice; put the last "
            "checkpoint back, or start a new run"
        )
    secret.anew(position.exchanges)


@dataclass(frozen=True)
class _Accounted:
    inner: Runtime
    account: Account
    begun: set[int] = field(default_factory=set)

    @property
    def roster(self) -> tuple[str, ...]:
        return self.inner.roster

    def call(self, tasks: Sequence[Task], clients: Sequence[str]) -> Iterator[Reply | Failure]:
        for task in tasks:
            at = step_of(task.context)[0] if task.algorithm == SPEAKING else task.context
            if task.algorithm in (TRAIN, SPEAKING) and at.exchange not in self.begun:
                self.account.asking(at.round, at.exchange)
                self.begun.add(at.exchange)
        yield from self.inner.call(tasks, clients)
