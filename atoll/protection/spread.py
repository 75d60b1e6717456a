"""Noise that clients add themselves: each to its own update, or a share of that of their sum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from atoll.accounting import Event, Shared, Spent, altogether
from atoll.accounting.distributed import plan_for, released
from atoll.accounting.grid import Plan, Sum, planned
from atoll.accounting.local import sigma_for
from atoll.accounting.solve import rounded_up
from atoll.config.privacy import Privacy
from atoll.core import Algorithm, Context, Exchange, Stage, State, Tree
from atoll.noise import Vault, derive
from atoll.protection.apart import apart
from atoll.protection.cohorts import Drawing
from atoll.protection.smallest import smallest_sum, terms_of
from atoll.secagg import Terms
from atoll.words import counted

__all__ = ["Spread"]

UPDATE = "update"


@dataclass(frozen=True)
class Spread:
    """Differential privacy of each client's share in `rounds` updates, by noise of the clients.

    The server need not be trusted: the file's epsilon holds against it, who knows each cohort, and
    what readers of the models learn is less.
    values: numbers in an update, once there is a model.
    """

    settings: Privacy
    drawing: Drawing
    rounds: int
    values: int = 1
    vault: Vault = field(default_factory=Vault, compare=False)

    correlated = None

    def fitted(self, algorithm: Algorithm, state: State) -> Spread:
        """For the update of `algorithm`; `state`: a server's, with the shapes of what it sends."""
        server = algorithm.server
        like = algorithm.client.template(server.broadcast(server.init(state), ""))
        values = sum(value.numel() for value in like[UPDATE].tree.values())
        return replace(self, values=values)

    @cached_property
    def noise_multiplier(self) -> float:
        """Noise over clip, in each update or in the smallest sum: as the file says, or the least
        that spends no more than the file's epsilon."""
        settings = self.settings
        if settings.noise_multiplier is not None:
            return settings.noise_multiplier
        assert settings.epsilon is not None, "nothing is promised"
        epsilon, delta, rounds = settings.epsilon, settings.delta, max(self.rounds, 1)
        if self.total is not None:
            plan = plan_for(self.total, settings.noise, epsilon=epsilon, delta=delta, rounds=rounds)
            return rounded_up(plan.sigma * plan.spacing * math.sqrt(self._honest) / self.clip)
        alone = sigma_for(
            epsilon=epsilon, delta=delta, clip=1, neighbours="replace-one", rounds=rounds
        )
        return rounded_up(alone)

    @property
    def clip(self) -> float:
        """The L2 norm of an update, at most."""
        assert isinstance(self.settings.clip, float), "the file was checked"
        return self.settings.clip

    @property
    def terms(self) -> Terms:
        """What clients hold a secure sum to."""
        return terms_of(self.settings, self.drawing)

    @property
    def total(self) -> Sum | None:
        """The smallest sum that is seen; None where each update is."""
        if self.settings.mechanism == "local":
            return None
        return smallest_sum(self.settings, self.drawing, self.clip, self.values)

    @property
    def _honest(self) -> int:
        """Whose noise counts in the smallest sum."""
        total = self.total
        return 1 if total is None else total.floor - total.colluding

    @cached_property
    def plan(self) -> Plan | None:
        """The grid and the noise of a client whose sum is seen; None where each update is."""
        total = self.total
        if total is None:
            return None
        return planned(total, self.noise_multiplier, self.settings.noise)

    @property
    def sigma(self) -> float:
        """The standard deviation of one client's noise."""
        return self.noise_multiplier * self.clip / math.sqrt(self._honest)

    @property
    def release(self) -> Shared:
        """What one round releases, with as few clients as it may have."""
        if self.plan is not None:
            return released(self.plan, self.terms.floor, self.drawing.population)
        return Shared(
            mechanism="gaussian", norm=self.clip, values=self.values, sigma=self.sigma,
            asked=self.drawing.most, survivors=1, population=self.drawing.population,
        )  # fmt: skip

    def happened(self, exchange: Exchange) -> Shared | None:
        """What a round did release; None where nothing was summed."""
        survivors, asked = len(exchange.folded), len(exchange.cohort)
        if not survivors:
            return None
        return self.release.model_copy(update={"survivors": survivors, "asked": asked})

    @property
    def releases(self) -> int:
        """How many releases the run is."""
        return self.rounds

    def released(self, noise_multiplier: float, rounds: int) -> Shared:
        """What so many rounds release, with such noise."""
        settings = self.settings.model_copy(update={"noise_multiplier": noise_multiplier})
        one = replace(self, settings=settings).release
        return one.model_copy(update={"steps": rounds})

    @property
    def delta(self) -> float:
        """The file's."""
        return self.settings.delta

    def spent(self, releases: Sequence[Event]) -> Spent:
        """What releases come to, at the file's delta."""
        return altogether(releases, self.settings.delta)

    def applied(self, algorithm: Algorithm, stages: Sequence[Stage]) -> Algorithm:
        """The algorithm, whose clients send what is cut and, where each is seen, hidden in noise.

        Where their sum is seen, what seals it adds the noise.
        """
        sigma = None if self.settings.mechanism == "distributed" else lambda: self.sigma
        return apart(algorithm, stages, self.clip, self.drawing.expected, sigma, self._key)

    def check(self) -> None:
        """Refuse noise that could not be had; a PrivacyError says what to change."""
        assert self.plan is not None or 0 < self.sigma < math.inf, "noise has a size"

    def noise_in(self, change: Tree, state: State, response: Sequence[float]) -> float:
        """The expected L2 norm of the noise that one update a round puts into `change`.

        response: of the server that it moves.
        """
        values = sum(value.numel() for value in change.values())
        return self.sigma * math.sqrt(values / self.drawing.expected) * math.hypot(*response)

    def signal_to_noise(self, values: int) -> tuple[float, float] | None:
        """At most, of one round's update of so many values and of all rounds together: were all
        updates alike, and as long as `clip`."""
        once = self.clip * math.sqrt(self.drawing.expected / values) / self.sigma
        return once, once * math.sqrt(self.rounds)

    def told(self) -> str:
        """What a run begins with, in one line."""
        settings = self.settings
        promised = "" if settings.epsilon is None else f"epsilon {settings.epsilon:g} at most, "
        solved = f", solved for {counted(self.rounds, 'round')}"
        solved = solved if settings.noise_multiplier is None else ""
        of = "each update" if self.total is None else f"sums of {self.terms.floor} clients or more"
        return (
            f"private: {promised}delta {settings.delta:g}, unit client, against the server too; "
            f"noise multiplier {self.noise_multiplier:.4g} in {of}{solved}; {self.drawing.told()}"
        )

    def statement(self) -> dict[str, Any]:
        """What is promised to whom, beside the ε."""
        plan = self.plan
        return {
            "unit": "client",
            "mechanism": self.settings.mechanism,
            "secure_aggregation": self.settings.secure_aggregation,
            "sampling": self.drawing.sampling.model_dump(mode="json"),
            "noise_multiplier": self.noise_multiplier,
            "clip": self.clip,
            "noise": "gaussian" if plan is None else plan.mechanism,
            "floor": 1 if plan is None else self.terms.floor,
            "colluding": 0 if plan is None else plan.sum.colluding,
        }

    def _key(self, context: Context, said: str) -> bytes:
        return derive(self.vault.key(context.exchange), "own", context.run, context.client, said)
