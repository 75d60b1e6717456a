"""Randomness that hides: from the operating system's entropy, never from a run's seed."""

from atoll.noise.gaussian import standard_normal
from atoll.noise.secret import Secret
from atoll.noise.stream import Stream, derive
from atoll.noise.vault import Vault

__all__ = ["Secret", "Stream", "Vault", "derive", "standard_normal"]
