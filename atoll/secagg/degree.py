"""How many neighbours, and how many of them open a secret: bounds on who may be corrupt or gone.

Source: Bell et al. (CCS 2020): with neighbours drawn at random, how many of a client's are corrupt,
or drop out, is hypergeometric. Computed in whole numbers. The bounds are on an order that nobody
chose: a server that tries many subsets of the adverts, and works with clients, can do better. Where
it is to be feared, every client masks with every other (`sparse_from` above the cohort).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from atoll.errors import ConfigError

__all__ = [
    "LIVENESS",
    "PRIVACY",
    "Degree",
    "Terms",
    "check_spare",
    "degree",
    "holds_together",
    "spare",
]

PRIVACY = Fraction(1, 2**40)
"""The chance that any client's secrets are with too many corrupt neighbours, or that honest ones
fall apart into groups that are summed separately."""
LIVENESS = Fraction(1, 2**30)
"""The chance that a client's secret cannot be opened though no more dropped out than assumed."""


@dataclass(frozen=True)
class Terms:
    """What a federation assumes of a cohort; each client holds its own, and takes no other's.

    corrupt, dropping: shares of a cohort that work with the server, that stop before the end.
    floor: no sum of fewer clients is opened.
    sparse_from: the cohort from which on a client masks with some of the others and not with all.
    """

    corrupt: float = 0.1
    dropping: float = 0.1
    floor: int = 5
    sparse_from: int = 50

    def __post_init__(self) -> None:
        if not (0 <= self.corrupt < 1 and 0 <= self.dropping < 1 and self.floor >= 2):
            raise ConfigError(
                f"secure aggregation: corrupt is {self.corrupt} and dropping {self.dropping}, "
                f"floor {self.floor}; give shares from 0 to below 1, and a floor of 2 at least"
            )

    def of(self, clients: int) -> tuple[int, int]:
        """How many of a cohort are corrupt and drop out at most: shares are rounded up."""
        # 0.07 · 100 is a little above 7 in floating point.
        corrupt, dropping = self.corrupt * clients - 1e-9, self.dropping * clients - 1e-9
        return math.ceil(corrupt), math.ceil(dropping)


@dataclass(frozen=True)
class Degree:
    """neighbours: of each client.   threshold: of a client and its neighbours, how many open its
    secrets.   signers: how many clients confirm who is summed, before anything is opened.
    """

    neighbours: int
    threshold: int
    signers: int


@lru_cache(maxsize=64)
def degree(clients: int, terms: Terms) -> Degree:
    """The smallest graph that holds both bounds; all with all where the cohort is small.

    Raises:
        ConfigError: when no graph does, or the cohort is below its own floor.
    """
    corrupt, dropping = terms.of(clients)
    signers = _signers(clients, corrupt)
    sparse = clients >= terms.sparse_from
    found = _sparse(clients, corrupt, dropping, terms.floor) if sparse else None
    neighbours, threshold = found or (clients - 1, signers)
    if clients < terms.floor or clients - dropping < max(threshold, signers):
        raise ConfigError(
            f"secure aggregation needs a cohort of {terms.floor}, and {max(threshold, signers)} "
            f"clients to the end; of {clients} {dropping} may stop before: ask more clients, or "
            f"set privacy.min_survivors, privacy.corrupt ({terms.corrupt}) or privacy.dropping "
            f"({terms.dropping}) lower, where that is true"
        )
    return Degree(neighbours, threshold, signers)


def spare(clients: int, terms: Terms) -> int:
    """How many of a cohort may stop, and its sum is opened all the same; -1: it has no sum.

    Thresholds of neighbours are never above the number of signers.
    """
    corrupt, dropping = terms.of(clients)
    signers = _signers(clients, corrupt)
    if clients < max(terms.floor, dropping + signers):
        return -1
    return clients - max(terms.floor, signers)


def check_spare(clients: int, terms: Terms) -> None:
    """Refuse a cohort that has no sum once as many stop as may.

    Raises:
        ConfigError: with what to change.
    """
    gone, found = terms.of(clients)[1], degree(clients, terms)
    if spare(clients, terms) < gone:
        least = max(terms.floor, found.signers)
        raise ConfigError(
            f"of {clients} clients {gone} may stop before the end (privacy.dropping is "
            f"{terms.dropping:g}), and no sum of fewer than {least} is opened: ask more clients, "
            f"or set privacy.min_survivors ({terms.floor}) or privacy.dropping lower, where that "
            "is true"
        )


def holds_together(neighbours: int, signers: int, floor: int) -> bool:
    """Whether all honest clients of a sum are in one piece, whoever is said to have stopped.

    A ring has the connectivity of its neighbours (Harary 1962). Missing are at most clients - floor
    who are not summed, and 2 · signers - clients - 1 who are corrupt: as many as may sign twice.
    """
    return neighbours > 2 * signers - 1 - floor


def _signers(clients: int, corrupt: int) -> int:
    """Two sets of survivors cannot both be signed by so many, even where the corrupt sign both; nor
    two attempts be opened by as many, since one who is not corrupt opens one of them."""
    return (clients + corrupt) // 2 + 1


def _sparse(clients: int, corrupt: int, dropping: int, floor: int) -> tuple[int, int] | None:
    """Groups that a server could split off hold more than a threshold; where the floor is higher,
    the ring holds together."""
    signers = _signers(clients, corrupt)
    for neighbours in range(2, clients - 1, 2):
        if clients**2 * _all_bad(clients, corrupt + dropping, neighbours) > 2 * PRIVACY:
            continue
        threshold = _private(clients, corrupt, neighbours)
        gone = neighbours - threshold + 1
        if threshold + 1 < floor and not holds_together(neighbours, signers, floor):
            continue
        if clients * _at_least(gone, clients - 1, dropping, neighbours) <= LIVENESS:
            return neighbours, threshold
    return None


def _private(clients: int, corrupt: int, neighbours: int) -> int:
    """The smallest threshold above half of a client and its neighbours that keeps its secrets."""
    threshold = (neighbours + 1) // 2 + 1
    while clients * _at_least(threshold, clients - 1, corrupt, neighbours) > PRIVACY:
        threshold += 1
    return threshold


def _at_least(least: int, population: int, marked: int, drawn: int) -> Fraction:
    """P[X >= least], X the marked among `drawn` without replacement (hypergeometric)."""
    if least <= 0:
        return Fraction(1)
    return Fraction(sum(_ways(least, population, marked, drawn)), math.comb(population, drawn))


def _ways(least: int, population: int, marked: int, drawn: int) -> Iterator[int]:
    for count in range(least, min(marked, drawn) + 1):
        yield math.comb(marked, count) * math.comb(population - marked, drawn - count)


def _all_bad(clients: int, bad: int, neighbours: int) -> Fraction:
    """That these `neighbours` clients are all corrupt or gone.

    A ring falls apart only where neighbours / 2 in a row are, at two places: fewer than
    clients² / 2 pairs of them.
    """
    bad = min(bad, clients)
    return Fraction(math.comb(bad, neighbours), math.comb(clients, neighbours))
