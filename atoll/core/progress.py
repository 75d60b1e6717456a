"""What a run is told, where it stands, and what its rounds came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from atoll import rng
from atoll.core.asked import Failure, State

__all__ = ["Exchange", "Federation", "Position", "Report"]


@dataclass(frozen=True)
class Federation:
    """Who is asked, and when an answer counts.

    min_clients: answers below which a round or an exchange is void and the run stops, whatever the
        number of clients that were asked. An evaluation moves nothing, so that it needs no more
        answers than there are clients.
    staleness: what an answer weighs that is late, for each round that it is.
    sample: (round, exchange, roster) -> its cohort; None: a uniform draw from `seed`.
    """

    seed: int
    run: str
    num_rounds: int
    clients_per_round: int
    min_clients: int = 1
    staleness: float = 1.0
    sample: Callable[[int, int, tuple[str, ...]], tuple[str, ...]] | None = None

    def cohort(self, number: int, exchange: int, roster: tuple[str, ...]) -> tuple[str, ...]:
        """Whom a round asks, in roster order."""
        if self.sample is not None:
            return self.sample(number, exchange, roster)
        if self.clients_per_round >= len(roster):
            return roster
        generator = rng.numpy_generator(self.seed, "cohort", self.run, number)
        chosen = generator.choice(len(roster), self.clients_per_round, replace=False)
        return tuple(roster[i] for i in sorted(chosen))


@dataclass(frozen=True)
class Position:
    """Where a run stands: all that the loop carries from one round to the next.

    exchanges: questions asked so far.   folded: each client's exchange that was folded last.
    """

    server: State
    round: int = -1
    exchanges: int = 0
    folded: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Exchange:
    """What one question to clients came to.

    folded: whose answer, and to which exchange; of a sum, also some whom `failures` name for what
    they said afterwards.   closed: why sums stayed closed before this one.
    """

    algorithm: str
    kind: str
    cohort: tuple[str, ...]
    failures: tuple[Failure, ...]
    metrics: Mapping[str, float]
    clients: Mapping[str, Mapping[str, float]]
    bytes_up: int
    bytes_down: int
    folded: Mapping[str, int] = field(default_factory=dict)
    closed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """One round: where the run stands after it, and its exchanges."""

    round: int
    position: Position
    exchanges: tuple[Exchange, ...]
