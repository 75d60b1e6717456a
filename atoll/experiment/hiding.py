"""What of a run hides clients or their rows, as its file says and its clients are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from atoll.config import Loaded
from atoll.core import Program, State
from atoll.data import FederatedData
from atoll.local.bench import Bench
from atoll.noise import Vault
from atoll.protection import (
    Parties,
    Protection,
    RowProtection,
    Spread,
    check_quorum,
    protection_of,
    rows_of,
    secured,
    securing_of,
    simulated,
)
from atoll.words import counted

__all__ = ["Hiding", "hiding_of", "keep_noise"]


@dataclass(frozen=True)
class Hiding:
    """clients: noise over each one's share.   rows: noise in their own training.

    measured: whether clients may tell how the model does on their own rows.
    """

    clients: Protection | Spread | None
    rows: RowProtection | None
    parties: Parties
    measured: bool

    def trained(self, bench: Bench) -> Bench:
        """The bench, whose clients hide their rows where they should."""
        return bench if self.rows is None else replace(bench, private=self.rows.private())

    def sealed(
        self, loaded: Loaded, program: Program, state: State, note: Callable[[str], None]
    ) -> tuple[Program, Hiding]:
        """The program, whose updates the server sees in sum only where it should, and what hides
        them, which knows how large they are.

        state: a server's.   note: hears of values that no sum holds, where there are clients.

        Raises:
            ConfigError: for sums that would hide less than is promised.
        """
        clients, training = self.clients, program.algorithms.get("train")
        cohort = loaded.experiment.federation.cohort(self.parties.population)
        most = min(cohort, self.parties.population)
        if clients is not None:
            most = clients.drawing.most
        if isinstance(clients, Spread) and training is not None:
            clients = clients.fitted(training, state)
        if isinstance(clients, Protection) and loaded.experiment.privacy.secure_aggregation:
            check_quorum(loaded, clients)
        spread = clients if isinstance(clients, Spread) else None
        securing = securing_of(loaded, self.parties, most, spread)
        if securing is not None:
            program = secured(program, replace(securing, note=note), state)
        self._tell_of_delta(loaded, note)
        return program, replace(self, clients=clients)

    def _tell_of_delta(self, loaded: Loaded, note: Callable[[str], None]) -> None:
        """Whoever gives one of n away whole, at random, keeps a promise of delta 1 / n."""
        many, what = 0, "client"
        if self.clients is not None:
            many = self.clients.drawing.population
        elif self.rows is not None:
            many, what = sum(self.rows.counts.values()), "training row"
        delta = loaded.experiment.privacy.delta
        if delta * many >= 1:
            note(
                f"warning: privacy.delta is {delta:g}, and there are {counted(many, what)}: a "
                f"promise that may fail for one in {1 / delta:.3g} may give one of them away; use "
                f"less than {1 / many:.2g}"
            )


def keep_noise(folder: Path, *hidings: Protection | Spread | RowProtection | None) -> None:
    """Have the noise of clients that are not where their run is come from a secret in `folder`, so
    that a question which is asked again after a crash is answered with the same noise."""
    for hiding in hidings:
        if hiding is not None:
            hiding.vault.keep(folder / "noise.key")


def hiding_of(
    loaded: Loaded, data: FederatedData, parties: Parties | None, population: int | None
) -> Hiding:
    """What the file asks for.

    parties: who takes part in secure sums; None: all of them, in this process.
    population: clients that there are in all; None: those that take part.
    """
    privacy, present = loaded.experiment.privacy, parties.population if parties else None
    # Scores of clients' rows would leave them; a simulation has those rows before it.
    measured = not privacy.hides or (data.whole and not data.made_up)
    clients = protection_of(loaded, population or present or len(data.clients))
    rows = rows_of(loaded, data)
    secret = clients or rows
    parties = parties or simulated(data.clients, secret.vault if secret else Vault())
    return Hiding(clients, rows, parties, measured)
