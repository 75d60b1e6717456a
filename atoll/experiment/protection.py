"""What the experiment file's `privacy` section comes to, for the clients that there are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from atoll.accounting import Everyone, Fixed, Poisson, Release, Sampling, Spent, noise_for, spent
from atoll.aggregators import on_grid
from atoll.config import Experiment, Loaded
from atoll.config.privacy import AdaptiveClip, Privacy
from atoll.core import Algorithm, Stage, State
from atoll.errors import ConfigError, PrivacyError
from atoll.local.clipped import cut_as_told
from atoll.noise import Stream, Vault
from atoll.servers.noised import Noise, noised
from atoll.servers.quantile import CLIP, Following, following_quantile, split_noise
from atoll.stages import clip, uniform, withhold

__all__ = ["Protection", "protection_of"]

FINE = 20
"""The grid has 2^20 steps in one standard deviation of the noise, or in the bound."""
REACH = 1024.0
"""How far an adaptive bound may move from its first value, either way."""


@dataclass(frozen=True)
class Protection:
    """Central differential privacy of each client's share in `rounds` updates.

    population: clients when the run began; expected: the mean size of a cohort.
    """

    settings: Privacy
    population: int
    expected: float
    sampling: Sampling
    rounds: int
    vault: Vault = field(default_factory=Vault, compare=False)

    @cached_property
    def noise_multiplier(self) -> float:
        """As the file says, or the least that spends no more than the file's epsilon."""
        if self.settings.noise_multiplier is not None:
            return self.settings.noise_multiplier
        assert self.settings.epsilon is not None, "nothing is promised"
        return noise_for(
            lambda noise: [self.released(noise, self.rounds)] if self.rounds else [],
            epsilon=self.settings.epsilon,
            delta=self.settings.delta,
        )

    @property
    def release(self) -> Release:
        """What one round releases."""
        return self.released(self.noise_multiplier, 1)

    def released(self, noise_multiplier: float, rounds: int) -> Release:
        """What so many rounds release, with such noise."""
        return Release(
            unit=self.settings.unit,
            noise_multiplier=noise_multiplier,
            sampling=self.sampling,
            steps=rounds,
        )

    def spent(self, releases: Sequence[Release]) -> Spent:
        """What releases come to, at the file's delta."""
        return spent(releases, self.settings.delta)

    def cohort(self, exchange: int, roster: tuple[str, ...]) -> tuple[str, ...]:
        """Whom a round asks, drawn in secret, in roster order."""
        stream, how = Stream(self.vault.key(exchange), "cohort"), self.sampling
        if isinstance(how, Everyone):
            return roster
        if isinstance(how, Poisson):
            chosen = np.flatnonzero(stream.coins(how.rate, len(roster)))
            size = len(chosen) if how.cap is None else min(how.cap, len(chosen))
        else:
            chosen, size = np.arange(len(roster)), min(how.size, len(roster))
        # Uniform draws of 64 bits sort in every order alike.
        kept = chosen[np.argsort(stream.words(len(chosen)), kind="stable")[:size]]
        return tuple(roster[place] for place in sorted(kept))

    def applied(self, algorithm: Algorithm, stages: Sequence[Stage]) -> Algorithm:
        """The algorithm with every update cut, summed on a grid, and noised.

        stages: the file's own, before the cut.

        Raises:
            CompositionError: when something would leave clients in the open.
            PrivacyError: when an adaptive bound would spend it all.
        """
        bound = self.settings.clip
        following = self._following(bound) if isinstance(bound, AdaptiveClip) else None
        least = bound if isinstance(bound, float) else bound.initial / REACH
        noise = Noise(self._deviation, self.expected, _step(least, self._on_update), self.vault.key)
        hidden: tuple[Stage, ...] = (uniform(), withhold(), *stages)
        client, server = algorithm.client, noised(algorithm.server, noise)
        if following is not None:
            client = cut_as_told(client, most=following.initial * REACH)
            server = following_quantile(server, following, noise)
        elif isinstance(bound, float):
            hidden = (*hidden, clip(norm=bound))
        return replace(
            algorithm,
            client=client,
            stages=hidden,
            aggregator=on_grid(step=noise.step),
            server=server,
        )

    def statement(self) -> dict[str, Any]:
        """What is promised to whom, beside the ε."""
        settings, clip = self.settings, self.settings.clip
        return {
            "unit": settings.unit,
            "mechanism": settings.mechanism,
            "sampling": self.sampling.model_dump(mode="json"),
            "noise_multiplier": self.noise_multiplier,
            "clip": clip if isinstance(clip, float) else clip.model_dump(mode="json"),
        }

    def _following(self, bound: AdaptiveClip) -> Following:
        count_noise = self._count_noise(bound)
        if math.isnan(split_noise(self.noise_multiplier, count_noise)):
            raise PrivacyError(
                f"privacy.clip.count_noise is {count_noise:g}, which is too little beside a noise "
                f"multiplier of {self.noise_multiplier:g}: counting who is below the bound would "
                f"spend more than the update may; give more than {self.noise_multiplier / 2:g}"
            )
        return Following(bound.initial, bound.quantile, bound.learning_rate, count_noise)

    def _count_noise(self, bound: AdaptiveClip) -> float:
        return self.expected / 20 if bound.count_noise is None else bound.count_noise

    @property
    def _on_update(self) -> float:
        """The noise multiplier of the update's own noise."""
        bound = self.settings.clip
        if isinstance(bound, float):
            return self.noise_multiplier
        return split_noise(self.noise_multiplier, self._count_noise(bound))

    def _deviation(self, state: State) -> float:
        bound = self.settings.clip
        norm = bound if isinstance(bound, float) else float(state[CLIP]["norm"])
        return self._on_update * norm


def _step(bound: float, noise_multiplier: float) -> float:
    unit = bound * (noise_multiplier or 1.0)
    return 2.0 ** (math.floor(math.log2(unit)) - FINE)


def protection_of(loaded: Loaded, population: int) -> Protection | None:
    """The protection that the file asks for; None where it asks for none.

    Raises:
        ConfigError: with what else in the file would leave clients in the open.
    """
    experiment = loaded.experiment
    if not experiment.privacy.on:
        return None
    for key, why in _open(experiment):
        raise ConfigError(f"{loaded.where(key)}: {why}")
    settings, federation = experiment.privacy, experiment.federation
    asked = federation.cohort(population)
    rate = asked / population if federation.fraction_train is None else federation.fraction_train
    sampling: Sampling = Everyone()
    if settings.sampling == "poisson" and rate < 1:
        expected = rate * population
        cap = settings.cap or math.ceil(expected + 5 * math.sqrt(expected))
        capped = cap < population
        sampling = Poisson(
            rate=rate, cap=cap if capped else None, population=population if capped else None
        )
    elif settings.sampling == "fixed" and asked < population:
        sampling = Fixed(size=asked, population=population)
    expected = rate * population if isinstance(sampling, Poisson) else float(asked)
    return Protection(settings, population, expected, sampling, federation.num_rounds)


def _open(experiment: Experiment) -> list[tuple[str, str]]:
    """Keys whose values would have something leave clients that no noise hides."""
    found: list[tuple[str, str]] = []
    if experiment.model.task == "regression":
        found.append((
            "model.task",
            "model.task is regression, which scales labels by the moments of all clients' rows, "
            "and no noise hides those; under privacy use classes, or scale the labels beforehand "
            "and use another task",
        ))  # fmt: skip
    if experiment.train.class_weights == "balanced":
        found.append((
            "train.class_weights",
            "train.class_weights is balanced, which counts all clients' labels, and no noise hides "
            "those counts; use balanced-per-client",
        ))  # fmt: skip
    return found
