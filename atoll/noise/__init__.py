"""Randomness that hides: from the operating system's entropy, never from a run's seed."""

from atoll.noise.gaussian import standard_normal
from atoll.noise.secret import Secret
from atoll.noise.stream import Stream, derive

__all__ = ["Secret", "Stream", "derive", "standard_normal"]
