"""What privacy costs: releases that happened, and the ε that they add up to."""

from atoll.accounting.epsilon import Spent, spent
from atoll.accounting.events import Everyone, Fixed, Poisson, Release, Sampling
from atoll.accounting.solve import noise_for
from atoll.accounting.statement import stated

__all__ = [
    "Everyone",
    "Fixed",
    "Poisson",
    "Release",
    "Sampling",
    "Spent",
    "noise_for",
    "spent",
    "stated",
]
