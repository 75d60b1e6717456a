"""Cohorts that nobody can guess: how they are drawn, and what an accountant may make of that."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from atoll.accounting import Everyone, Fixed, InTurns, Poisson, Present, Sampling
from atoll.config import Federation
from atoll.config.privacy import Privacy
from atoll.noise import Stream

__all__ = ["Drawing", "drawing_of", "drawn"]


@dataclass(frozen=True)
class Drawing:
    """How a run's cohorts come about.

    population: clients when the run began.   expected: the mean size of a cohort.
    """

    population: int
    expected: float
    sampling: Sampling

    @property
    def most(self) -> int:
        """Clients of the largest cohort."""
        if isinstance(self.sampling, Fixed | InTurns):
            return round(self.expected)
        capped = self.sampling.cap if isinstance(self.sampling, Poisson) else None
        return capped or self.population

    @property
    def usual(self) -> int:
        """Clients of a cohort that is small by chance: two deviations below the mean."""
        if not isinstance(self.sampling, Poisson):
            return round(self.expected)
        spread = math.sqrt(self.expected * (1 - self.sampling.rate))
        return max(math.floor(self.expected - 2 * spread), 0)

    def cohort(self, key: bytes, number: int, roster: tuple[str, ...]) -> tuple[str, ...]:
        """Whom a round asks, in roster order; `key`: the secret of its exchange."""
        if isinstance(self.sampling, InTurns):
            return _in_turn(number, round(self.expected), roster)
        return drawn(key, self.sampling, roster)

    def told(self) -> str:
        """In words, as in "cohorts by secret coins, 10 of 100 clients"."""
        kinds = {Poisson: "secret coins", Fixed: "secret draws", InTurns: "turns"}
        how = kinds.get(type(self.sampling), "no chance")
        return f"cohorts by {how}, {self.expected:.4g} of {self.population} clients"


def drawing_of(settings: Privacy, federation: Federation, population: int) -> Drawing:
    """That of the file's rounds, among so many clients."""
    sampling = _sampling_of(settings, federation, population)
    expected = float(population)
    if isinstance(sampling, Poisson):
        expected = sampling.rate * population
    elif isinstance(sampling, Fixed):
        expected = float(sampling.size)
    elif isinstance(sampling, InTurns):
        expected = float(min(federation.cohort(population), population))
    return Drawing(population, expected, sampling)


def _sampling_of(settings: Privacy, federation: Federation, population: int) -> Sampling:
    """How a round's cohort is drawn among `population` clients."""
    share, asked = federation.fraction_train, min(federation.cohort(population), population)
    rate = asked / population if share is None else share
    if settings.sampling == "poisson" and rate < 1:
        mean = rate * population
        cap = settings.cap or math.ceil(mean + 5 * math.sqrt(mean))
        if cap < population:
            return Poisson(rate=rate, cap=cap, population=population)
        return Poisson(rate=rate)
    if settings.sampling == "fixed" and asked < population:
        return Fixed(size=asked, population=population)
    if settings.sampling == "turns":
        return InTurns()
    return Present() if settings.secure_aggregation else Everyone()


def _in_turn(number: int, size: int, roster: tuple[str, ...]) -> tuple[str, ...]:
    """The cohort of a round, counted from 1, where all take part in order, again and again."""
    first = (number - 1) * size
    places = {place % len(roster) for place in range(first, first + size)}
    return tuple(roster[place] for place in sorted(places))


def drawn(key: bytes, sampling: Sampling, roster: tuple[str, ...]) -> tuple[str, ...]:
    """A cohort, in roster order: the same one from the same key."""
    stream = Stream(key, "cohort")
    if isinstance(sampling, Everyone | InTurns | Present):
        return roster
    if isinstance(sampling, Poisson):
        chosen = np.flatnonzero(stream.coins(sampling.rate, len(roster)))
        size = len(chosen) if sampling.cap is None else min(sampling.cap, len(chosen))
    else:
        chosen, size = np.arange(len(roster)), min(sampling.size, len(roster))
    # Uniform draws of 64 bits sort into every order alike.
    kept = chosen[np.argsort(stream.words(len(chosen)), kind="stable")[:size]]
    return tuple(roster[place] for place in sorted(kept))
