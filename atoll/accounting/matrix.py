"""The ε of rounds with correlated noise."""

from __future__ import annotations

from atoll.accounting.events import InTurns, Release

__all__ = ["ADJACENCY", "release"]

ADJACENCY = "zero-out: one client's contributions, in all its rounds, or zeros in their place"
"""Cohorts are the same for both neighbours. With a fixed denominator, leaving a client out moves
sums as zeros do; others who might then be asked in its place are not covered by the distance."""


def release(noise_multiplier: float, *, planned: float, so_far: float | None = None) -> Release:
    """All rounds up to now are one Gaussian release, however many they are.

    planned: the sensitivity of the planned run, by which the noise was multiplied.
    so_far: that of the rounds that are over, which is smaller; without it, all that were planned.
        That a run ends earlier than planned must not depend on what it released.
    """
    return Release(
        unit="client",
        noise_multiplier=noise_multiplier * planned / (planned if so_far is None else so_far),
        sampling=InTurns(),
    )
