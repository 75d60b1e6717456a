"""The tables of the package, and which of them serves a planned run best."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from atoll.errors import ConfigError
from atoll.matrix.blt import Blt, error, sensitivity
from atoll.matrix.participation import Participation

__all__ = ["MOST_ROUNDS", "Strategy", "Table", "strategy", "tables"]

MOST_ROUNDS = 2000
_VERSION = 1


@dataclass(frozen=True)
class Table:
    """Coefficients, and the participation that they were optimised for."""

    blt: Blt
    made_for: Participation


@dataclass(frozen=True)
class Strategy:
    """The coefficients of a run, with the sensitivity and error of that very run.

    error: of a sum of first rounds' noise at sensitivity 1, as a multiple of one z.
    """

    blt: Blt
    participation: Participation
    sensitivity: float
    error: float

    @property
    def gain(self) -> float:
        """How many times less noise a sum of rounds has than with independent noise."""
        return _independent(self.participation) / (self.sensitivity * self.error)


@cache
def tables() -> tuple[Table, ...]:
    """All tables, optimised offline by `benchmarks/blt`; nothing in them is taken on trust."""
    raw = json.loads(files("atoll.matrix").joinpath("tables.json").read_text("utf-8"))
    assert raw["version"] == _VERSION, "tables of another version of the package"
    return tuple(
        Table(
            Blt(tuple(each["decay"]), tuple(each["scale"])),
            Participation(each["rounds"], each["separation"], each["participations"]),
        )
        for each in raw["tables"]
    )


@cache
def strategy(participation: Participation) -> Strategy:
    """The table with the least noise for a planned run.

    Any table serves a run of any length: the coefficients of a BLT go on, and the first rows and
    columns of C are the C of a shorter run. Sensitivity and error are computed for the run itself;
    what a table was made for decides only how well it does.

    Raises:
        ConfigError: when the run is longer than the tables, or correlated noise gains nothing.
    """
    if participation.rounds > MOST_ROUNDS:
        raise ConfigError(
            f"mechanism 'blt': {participation.rounds} rounds, and the tables of coefficients reach "
            f"{MOST_ROUNDS}; plan fewer rounds, or use mechanism 'gaussian'"
        )
    candidates = [
        Strategy(
            table.blt,
            participation,
            sensitivity(table.blt, participation),
            error(table.blt, participation.rounds),
        )
        for table in tables()
    ]
    best = max(candidates, key=lambda candidate: candidate.gain)
    # Without a buffer it is independent noise, whose gain is 1 but for what rounding makes of it.
    if best.gain <= 1 or not best.blt.decay:
        raise ConfigError(
            f"mechanism 'blt': over {participation.rounds} rounds, with up to "
            f"{participation.possible} of each client at least {participation.separation} apart, "
            "correlated noise gains nothing; use mechanism 'gaussian'"
        )
    return best


def _independent(participation: Participation) -> float:
    return math.sqrt(participation.possible * participation.rounds)
