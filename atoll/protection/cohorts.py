"""Cohorts that nobody can guess: how they are drawn, and what an accountant may make of that."""

from __future__ import annotations

import math

import numpy as np

from atoll.accounting import Everyone, Fixed, Poisson, Sampling
from atoll.config import Federation
from atoll.config.privacy import Privacy
from atoll.noise import Stream

__all__ = ["drawn", "in_turn", "sampling_of"]


def sampling_of(settings: Privacy, federation: Federation, population: int) -> Sampling:
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
    return Everyone()


def in_turn(number: int, size: int, roster: tuple[str, ...]) -> tuple[str, ...]:
    """The cohort of a round, counted from 1, where all take part in order, again and again."""
    first = (number - 1) * size
    places = {place % len(roster) for place in range(first, first + size)}
    return tuple(roster[place] for place in sorted(places))


def drawn(key: bytes, sampling: Sampling, roster: tuple[str, ...]) -> tuple[str, ...]:
    """A cohort, in roster order: the same one from the same key."""
    stream = Stream(key, "cohort")
    if isinstance(sampling, Everyone):
        return roster
    if isinstance(sampling, Poisson):
        chosen = np.flatnonzero(stream.coins(sampling.rate, len(roster)))
        size = len(chosen) if sampling.cap is None else min(sampling.cap, len(chosen))
    else:
        chosen, size = np.arange(len(roster)), min(sampling.size, len(roster))
    # Uniform draws of 64 bits sort into every order alike.
    kept = chosen[np.argsort(stream.words(len(chosen)), kind="stable")[:size]]
    return tuple(roster[place] for place in sorted(kept))
