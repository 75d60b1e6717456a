"""Single rows hidden in what clients send: DP-SGD inside their training, and what it spends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from atoll.accounting import Event, Poisson, Release, Spent, Way, altogether, noise_for
from atoll.accounting.epsilon import LEAST
from atoll.config.privacy import Privacy
from atoll.config.sections import Train
from atoll.core import Context
from atoll.errors import ConfigError
from atoll.local.per_example import PerExample
from atoll.noise import Vault, derive
from atoll.protection.drawn import Drawn, covered
from atoll.protection.protection import unbounded

__all__ = ["RowProtection"]


@dataclass(frozen=True)
class RowProtection:
    """Differential privacy of each row, in `rounds` rounds that may all ask its client.

    counts: training rows of the clients of this process, which an ε depends on.
    """

    settings: Privacy
    train: Train
    counts: Mapping[str, int]
    rounds: int
    vault: Vault = field(default_factory=Vault, compare=False)

    correlated = None

    @cached_property
    def noise_multiplier(self) -> float:
        """As the file says, or the least with which no client's rows spend more than epsilon."""
        settings = self.settings
        if settings.noise_multiplier is not None:
            return settings.noise_multiplier
        assert settings.epsilon is not None, "nothing is promised"
        return noise_for(
            lambda noise: [self._released(noise)] * max(self.rounds, 1),
            epsilon=settings.epsilon,
            delta=settings.delta,
        )

    @property
    def release(self) -> Release:
        """What one round spends at most, of any client's rows."""
        return self._released(self.noise_multiplier)

    @property
    def releases(self) -> int:
        """How many steps the run is, for a row whose client is asked each round."""
        return self.rounds * self.release.steps

    def released(self, noise_multiplier: float, steps: int) -> Release:
        """What rounds of so many steps spend, with such noise."""
        one = self._released(noise_multiplier)
        return one.times(-(-steps // one.steps))

    def _released(self, noise_multiplier: float) -> Release:
        """What the rows of whichever client pay in a round."""
        drawn, rounds = self._drawn.values(), max(self.rounds, 1)
        first, *others = covered(drawn, noise_multiplier, rounds, self.settings.delta)
        ways = tuple(Way(rate=rate, steps=steps) for rate, steps in others)
        return Release(
            unit="example", noise_multiplier=noise_multiplier,
            sampling=Poisson(rate=first[0]), steps=first[1], ways=ways,
        )  # fmt: skip

    @cached_property
    def _drawn(self) -> dict[str, Drawn]:
        """By client, how often and in how many steps a round draws each of its rows."""
        private, found = PerExample(self._clip, 1.0, self._key), dict[str, Drawn]()
        for client, count in self.counts.items():
            spends = private.spends(self.train, count) if count else None
            if spends is not None and isinstance(spends.sampling, Poisson):
                found[client] = spends.sampling.rate, spends.steps
        return found

    def signal_to_noise(self, values: int) -> tuple[float, float] | None:
        """At most, of one client's update of so many values in a round, and in all: were all rows'
        gradients alike, and as long as `clip`."""
        noise = self.noise_multiplier * math.sqrt(values)
        if not noise:
            return None
        most = max(
            (rate * self.counts[client] * math.sqrt(steps)
             for client, (rate, steps) in self._drawn.items()), default=0.0,
        )  # fmt: skip
        return most / noise, most * math.sqrt(self.rounds) / noise

    def private(self) -> PerExample:
        """How local training hides rows."""
        return PerExample(self._clip, self.noise_multiplier, self._key)

    @property
    def delta(self) -> float:
        """The file's."""
        return self.settings.delta

    def spent(self, releases: Sequence[Event]) -> Spent:
        """What releases come to, at the file's delta."""
        return altogether(releases, self.settings.delta)

    def check(self) -> None:
        """Refuse noise that could not be had."""
        assert 0 <= self.noise_multiplier * self._clip < math.inf, "noise has a size"

    def told(self) -> str:
        """What a run begins with, in one line."""
        settings = self.settings
        if self.noise_multiplier < LEAST:
            return unbounded(settings)
        promised = "" if settings.epsilon is None else f"epsilon {settings.epsilon:g} at most, "
        drawn = self._drawn.values() or [(1.0, self.release.steps)]
        rates = _range(f"{rate:.3g}" for rate, _ in sorted(drawn))
        steps = _range(f"{steps:,}" for _, steps in sorted(drawn, key=lambda one: one[1]))
        return (
            f"private: {promised}delta {settings.delta:g}, unit example; noise multiplier "
            f"{self.noise_multiplier:.4g} in each of {steps} steps a round, whose batches "
            f"have a row by a coin of {rates}"
        )

    def statement(self) -> dict[str, Any]:
        """What is promised to whom, beside the ε; the coin is that of about the dearest rows."""
        return {
            "unit": "example",
            "mechanism": "gaussian",
            "secure_aggregation": self.settings.secure_aggregation,
            "sampling": self.release.sampling.model_dump(mode="json"),
            "noise_multiplier": self.noise_multiplier,
            "clip": self.settings.clip,
        }

    @property
    def _clip(self) -> float:
        if not isinstance(self.settings.clip, float):
            raise ConfigError(
                "privacy.clip is adaptive, and privacy.unit is example, whose gradients are cut to "
                "a number; give one"
            )
        return self.settings.clip

    def _key(self, context: Context) -> bytes:
        return derive(self.vault.key(context.exchange), "rows", context.client)


def _range(sorted_texts: Iterable[str]) -> str:
    """The first and the last, or the one that all are."""
    low, *_, high = [*sorted_texts] * 2
    return low if low == high else f"{low} to {high}"
