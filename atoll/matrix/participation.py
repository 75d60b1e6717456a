"""How often, and how closely, one client takes part: what the sensitivity of a matrix rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from atoll.errors import ConfigError, PrivacyError

__all__ = ["Participation", "check_history", "eligible", "in_turns"]

History = Mapping[str, Sequence[int]]
"""The rounds (1, 2, …) in which each client's contribution was folded, or may have been."""


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


def eligible(
    participation: Participation, history: History, clients: Sequence[str], number: int
) -> tuple[str, ...]:
    """Who may be asked in round `number`, in the order of `clients`.

    Who is chosen among them, and why, does not matter as long as it does not depend on their data.
    Whoever was asked took part, unless it is certain that its answer was not folded.

    Raises:
        PrivacyError: in a round that was not planned.
    """
    if not 1 <= number <= participation.rounds:
        raise PrivacyError(
            f"round {number} of a run whose noise was planned for {participation.rounds}; start a "
            "new run, whose budget is its own"
        )

    def free(rounds: Sequence[int]) -> bool:
        return len(rounds) < participation.times and all(
            abs(number - other) >= participation.separation for other in rounds
        )

    return tuple(client for client in clients if free(history.get(client, ())))


def check_history(participation: Participation, history: History) -> None:
    """Refuse a history that the sensitivity does not cover.

    Raises:
        PrivacyError: names the first client, in order, and its rounds.
    """
    for client, rounds in sorted(history.items()):
        ordered = sorted(rounds)
        if len(ordered) > participation.times:
            raise PrivacyError(
                f"client '{client}' took part {len(ordered)} times, and the noise was planned for "
                f"{participation.times}: the stated epsilon does not hold for it"
            )
        for one, other in pairwise(ordered):
            if other - one < participation.separation:
                raise PrivacyError(
                    f"client '{client}' took part in rounds {one} and {other}, and the noise was "
                    f"planned for {participation.separation} rounds from one to the next: the "
                    "stated epsilon does not hold for it"
                )
        if ordered and not 1 <= ordered[0] <= ordered[-1] <= participation.rounds:
            raise PrivacyError(
                f"client '{client}' took part in rounds {ordered[0]} to {ordered[-1]} of a run "
                f"planned for {participation.rounds}: the stated epsilon does not hold for it"
            )
