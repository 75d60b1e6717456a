"""Who takes part in secure sums."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from atoll import ckks
from atoll.ckks import Silo
from atoll.noise import Vault, derive
from atoll.secagg import Held, Identity, Member, Moment, roster_verifier
from atoll.secagg.keys import Verifier

__all__ = ["Parties", "simulated"]


@dataclass(frozen=True)
class Parties:
    """Whose signatures count, and the clients of this process.

    verify: against a roster that the server does not run.   member: by name.
    population: clients that there are in all.   run: a name of the federation that no other has;
    empty in a simulation.   names: whose signatures count.
    silo: by name, in encrypted sums; None at a server, which takes no part in them.
    """

    verify: Verifier
    member: Callable[[str], Member]
    population: int
    run: str = ""
    names: Sequence[str] = ()
    silo: Callable[[str], Silo] | None = None


def simulated(clients: Sequence[str], vault: Vault) -> Parties:
    """Clients of a simulation, all in one place: their identities hide nothing, their masks do.

    vault: the run's secret, from which all follows that they draw under masks: a round that is
    asked again repeats it.
    """
    identities = {
        name: Identity(hashlib.sha256(b"atoll simulated identity\0" + name.encode()).digest())
        for name in clients
    }
    # Everyone checks everyone's signatures; in one process each is checked once.
    verify = lru_cache(maxsize=2**16)(
        roster_verifier({name: one.public for name, one in identities.items()})
    )

    def member(name: str) -> Member:
        def secret(moment: Moment) -> bytes:
            return derive(vault.key(moment.exchange), "member", name, moment.attempt)

        return Member(name, identities[name].sign, verify, Held(), secret)

    members = {name: member(name) for name in clients}
    silos = {name: Silo(name, one.sign, verify, ckks.Held()) for name, one in identities.items()}
    return Parties(
        verify, members.__getitem__, len(members), names=tuple(clients), silo=silos.__getitem__
    )
