"""What a run is told, where it stands, and what its rounds came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from atoll.core.parts import Failure, State

__all__ = ["Exchange", "Federation", "Position", "Report"]


@dataclass(frozen=True)
class Federation:
    """Who is asked, and when an answer counts.

    min_clients: answers below which a round or an exchange is void and the run stops, whatever the
        number of clients that were asked. An evaluation moves nothing, so that it needs no more
        answers than there are clients.
    staleness: what an answer weighs that is late, for each round that it is.
    """

    seed: int
    run: str
    num_rounds: int
    clients_per_round: int
    min_clients: int = 1
    staleness: float = 1.0


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
    """What one question to clients came to; folded: whose answer, and to which exchange."""

    algorithm: str
    kind: str
    cohort: tuple[str, ...]
    failures: tuple[Failure, ...]
    metrics: Mapping[str, float]
    clients: Mapping[str, Mapping[str, float]]
    bytes_up: int
    bytes_down: int
    folded: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """One round: where the run stands after it, and its exchanges."""

    round: int
    position: Position
    exchanges: tuple[Exchange, ...]
