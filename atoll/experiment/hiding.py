"""What of a run hides clients or their rows, as its file says and its clients are."""

from __future__ import annotations

from dataclasses import dataclass, replace

from atoll.config import Loaded
from atoll.core import Program, State
from atoll.data import FederatedData
from atoll.local.bench import Bench
from atoll.protection import (
    Parties,
    Protection,
    RowProtection,
    protection_of,
    rows_of,
    secured,
    securing_of,
    simulated,
)

__all__ = ["Hiding", "hiding_of"]


@dataclass(frozen=True)
class Hiding:
    """clients: noise over each one's share.   rows: noise in their own training.

    measured: whether clients may tell how the model does on their own rows.
    """

    clients: Protection | None
    rows: RowProtection | None
    parties: Parties
    measured: bool

    def trained(self, bench: Bench) -> Bench:
        """The bench, whose clients hide their rows where they should."""
        return bench if self.rows is None else replace(bench, private=self.rows.private())

    def sealed(self, loaded: Loaded, program: Program, state: State) -> Program:
        """The program, whose updates the server sees in sum only where it should."""
        cohort = loaded.experiment.federation.cohort(self.parties.population)
        most = min(cohort, self.parties.population)
        if self.clients is not None:
            most = self.clients.most
        return secured(program, securing_of(loaded, self.parties, most), state)


def hiding_of(loaded: Loaded, data: FederatedData, parties: Parties | None) -> Hiding:
    """What the file asks for.

    parties: who takes part in secure sums; None: all of them, in this process.

    Raises:
        ConfigError: with what else in the file would leave clients or rows in the open.
    """
    parties, privacy = parties or simulated(data.clients), loaded.experiment.privacy
    hidden = privacy.on or privacy.secure_aggregation
    # Scores of clients' rows would leave them; a simulation has those rows before it.
    measured = not hidden or (data.whole and not data.made_up)
    clients = protection_of(loaded, parties.population)
    return Hiding(clients, rows_of(loaded, data), parties, measured)
