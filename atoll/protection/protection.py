"""Whom a run protects, by which noise, and what that spends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from atoll.accounting import Event, Poisson, Release, Spent, altogether, noise_for
from atoll.accounting.epsilon import LEAST
from atoll.config.privacy import AdaptiveClip, Privacy
from atoll.core import Algorithm, Stage, State, Tree
from atoll.matrix import Mechanism, in_turns, mechanism
from atoll.matrix.blt import inverse
from atoll.noise import Vault
from atoll.protection.central import Central, hidden
from atoll.protection.cohorts import Drawing
from atoll.protection.summed import grid_step
from atoll.words import counted

__all__ = ["QUORUM_OF_RUN", "Protection", "unbounded"]

QUORUM_SHARE, QUORUM_OF_RUN = 0.01, 0.001
"""The share of δ that is left for cohorts in which one client decides if there is a sum, and what
one run may take of it: a model, or a ledger, may be of several."""


@dataclass(frozen=True)
class Protection:
    """Differential privacy of each client's share in `rounds` updates, by noise of the server."""

    settings: Privacy
    drawing: Drawing
    rounds: int
    vault: Vault = field(default_factory=Vault, compare=False)

    @cached_property
    def noise_multiplier(self) -> float:
        """As the file says, or the least that spends no more than the file's epsilon."""
        if self.settings.noise_multiplier is not None:
            return self.settings.noise_multiplier
        assert self.settings.epsilon is not None, "nothing is promised"
        return noise_for(
            lambda noise: [self.released(noise, max(self.releases, 1))],
            epsilon=self.settings.epsilon,
            delta=self.delta,
        )

    @property
    def delta(self) -> float:
        """The file's, less what a quorum of sums whose cohorts are drawn by coins may take."""
        drawn = isinstance(self.drawing.sampling, Poisson) and self.settings.secure_aggregation
        return self.settings.delta * (1 - QUORUM_SHARE if drawn else 1)

    @property
    def release(self) -> Release:
        """What one round releases."""
        return self.released(self.noise_multiplier, 1)

    def released(self, noise_multiplier: float, rounds: int) -> Release:
        """What so many rounds release, with such noise."""
        return Release(
            unit=self.settings.unit,
            noise_multiplier=noise_multiplier,
            sampling=self.drawing.sampling,
            steps=rounds,
        )

    def spent(self, releases: Sequence[Event]) -> Spent:
        """What releases come to, at the file's delta."""
        return replace(altogether(releases, self.delta), delta=self.settings.delta)

    @cached_property
    def correlated(self) -> Mechanism | None:
        """The noise that rounds have in common; None where each has its own."""
        if self.settings.mechanism != "blt" or not self.rounds:
            return None
        asked = round(self.drawing.expected)
        return mechanism(in_turns(self.drawing.population, asked, self.rounds))

    @property
    def releases(self) -> int:
        """How many releases the run is: one for each round, or one in all."""
        return min(self.rounds, 1) if self.settings.mechanism == "blt" else self.rounds

    @property
    def clip(self) -> float | AdaptiveClip:
        """As the file says, with the noise on the count of who is below an adaptive bound."""
        clip = self.settings.clip
        if isinstance(clip, float):
            return clip
        return clip.model_copy(update={"count_noise": self._central.count_noise})

    def reach(self, rounds: int) -> float:
        """The largest that a bound becomes in so many rounds, whatever clients say; noise on their
        count helps by five deviations in each."""
        clip = self.clip
        if isinstance(clip, float):
            return clip
        drawing, noise = self.drawing, self._central.count_noise
        share = clip.quantile - 0.5 + (drawing.most / 2 + 5 * noise) / drawing.expected
        growth = math.exp(min(rounds * clip.learning_rate * share, 100.0))
        return min(clip.initial * growth, clip.largest)

    def applied(self, algorithm: Algorithm, stages: Sequence[Stage]) -> Algorithm:
        """The algorithm, of which nothing leaves clients in the open; see `hidden`."""
        return hidden(algorithm, stages, self._central)

    def check(self) -> None:
        """Refuse noise that could not be had.

        Raises:
            PrivacyError: with what to change.
        """
        clip = self.settings.clip
        longest = clip if isinstance(clip, float) else clip.largest
        assert 0 <= self._central.on_update * longest < math.inf, "noise has a size"

    @property
    def _central(self) -> Central:
        clip, step = self.settings.clip, None
        if self.settings.secure_aggregation:
            bound = clip if isinstance(clip, float) else clip.largest
            step = grid_step(bound, self.drawing.most)
        return Central(
            lambda: self.noise_multiplier, clip, self.drawing.expected, self.vault.key, step,
            self.correlated, self.vault.kept,
        )  # fmt: skip

    def noise_in(self, change: Tree, state: State, response: Sequence[float]) -> float:
        """The expected L2 norm of the noise that one update a round puts into `change`.

        state: after those rounds.   response: of the server that it moves.
        """
        values = sum(value.numel() for value in change.values())
        together, steps = self.correlated, np.asarray(response)
        if together is not None:
            chosen = together.strategy
            taken_back = inverse(chosen.blt, len(steps))
            steps = chosen.sensitivity * np.convolve(steps, taken_back)[: len(steps)]
        # A step of the last round has just begun to move the model.
        noise = steps * self._central.deviations(state, len(steps))[::-1]
        return math.sqrt(values) * float(np.linalg.norm(noise)) / self.drawing.expected

    def signal_to_noise(self, values: int) -> tuple[float, float] | None:
        """At most, of one round's update of so many values and of all rounds together: were all
        updates alike, and as long as `clip`; None without noise."""
        noise = self._central.on_update * math.sqrt(values)
        if not noise:
            return None
        expected = self.drawing.expected
        if self.correlated is None:
            return expected / noise, expected * math.sqrt(self.rounds) / noise
        chosen = self.correlated.strategy
        once = noise * chosen.sensitivity
        return expected / once, expected * self.rounds / (once * chosen.error)

    def told(self) -> str:
        """What a run begins with, in one line."""
        settings = self.settings
        if self.noise_multiplier < LEAST:
            return unbounded(settings)
        promised = "" if settings.epsilon is None else f"epsilon {settings.epsilon:g} at most, "
        solved = f", solved for {counted(self.rounds, 'round')}"
        solved = solved if settings.noise_multiplier is None else ""
        return (
            f"private: {promised}delta {settings.delta:g}, unit {settings.unit}; noise multiplier "
            f"{self.noise_multiplier:.4g}{solved}; {self.drawing.told()}"
        )

    def statement(self) -> dict[str, Any]:
        """What is promised to whom, beside the ε."""
        settings, clip = self.settings, self.settings.clip
        return {
            "unit": settings.unit,
            "mechanism": settings.mechanism,
            "secure_aggregation": settings.secure_aggregation,
            "sampling": self.drawing.sampling.model_dump(mode="json"),
            "noise_multiplier": self.noise_multiplier,
            "clip": clip if isinstance(clip, float) else clip.model_dump(mode="json"),
        }


def unbounded(settings: Privacy) -> str:
    """What a run with no noise, or next to none, begins with."""
    whom, what = ("client", "updates") if settings.unit == "client" else ("row", "gradients")
    return (
        f"warning: a privacy.noise_multiplier of {settings.noise_multiplier:g} hides no {whom}: "
        f"{what} are cut to privacy.clip, and nothing bounds what the model remembers of them; "
        "give privacy.epsilon, or more noise"
    )
