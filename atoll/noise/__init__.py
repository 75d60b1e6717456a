"""Randomness that hides: from the operating system's entropy, never from a run's seed."""

from atoll.noise.discrete import discrete_gaussian
from atoll.noise.gaussian import standard_normal
from atoll.noise.rounding import rounded
from atoll.noise.secret import Secret
from atoll.noise.skellam import skellam
from atoll.noise.stream import Stream, derive
from atoll.noise.vault import Vault

__all__ = [
    "Secret",
    "Stream",
    "Vault",
    "derive",
    "discrete_gaussian",
    "rounded",
    "skellam",
    "standard_normal",
]
