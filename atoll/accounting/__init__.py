"""What privacy costs: releases that happened, and the ε that they add up to."""

from atoll.accounting.epsilon import Spent, spent
from atoll.accounting.events import (
    Everyone,
    Fixed,
    InTurns,
    Poisson,
    Present,
    Release,
    Sampling,
    Way,
)
from atoll.accounting.shares import Shared
from atoll.accounting.solve import noise_for
from atoll.accounting.statement import stated, summed
from atoll.accounting.together import Event, altogether

__all__ = [
    "Event",
    "Everyone",
    "Fixed",
    "InTurns",
    "Poisson",
    "Present",
    "Release",
    "Sampling",
    "Shared",
    "Spent",
    "Way",
    "altogether",
    "noise_for",
    "spent",
    "stated",
    "summed",
]
