"""How often, and how closely, one client takes part: what the sensitivity of a matrix rests on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from atoll.errors import ConfigError

__all__ = ["Participation", "in_turns"]


@dataclass(frozen=True)
class Participation:
    """At most `times` of `rounds`, any two of them at least `separation` apart (1: adjacent ones).

    Raises:
        ConfigError: when one of them is below 1.
    """

    rounds: int
    separation: int
    times: int

    def __post_init__(self) -> None:
        for name, value in (
            ("rounds", self.rounds),
            ("separation", self.separation),
            ("times", self.times),
        ):
            if value < 1:
                raise ConfigError(f"mechanism 'blt': {name} is {value}; give a number from 1 on")

    @property
    def possible(self) -> int:
        """How often the separation lets one client take part, up to `times`."""
        return min(self.times, math.ceil(self.rounds / self.separation))


def in_turns(population: int, cohort: int, rounds: int) -> Participation:
    """What everyone in order keeps: nobody comes again before all others did, or nearly all."""
    if not 1 <= cohort <= population:
        raise ConfigError(
            f"mechanism 'blt': {cohort} clients a round of a population of {population}; ask at "
            "least one, and at most all"
        )
    separation = population // cohort
    return Participation(rounds, separation, math.ceil(rounds / separation))
