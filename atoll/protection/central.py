"""Noise that the server adds: every update is cut, summed exactly, and hidden in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from atoll.aggregators import on_grid
from atoll.config.privacy import REACH, AdaptiveClip
from atoll.core import Algorithm, Stage, State
from atoll.errors import CompositionError, PrivacyError
from atoll.local.clipped import cut_as_told
from atoll.matrix import Mechanism
from atoll.servers.noised import Noise, noised
from atoll.servers.quantile import CLIP, CLIPS, NORM, Following, following_quantile, split_noise
from atoll.servers.values import ADAPTER, HEAD
from atoll.stages import clip, uniform, withhold

__all__ = ["Central", "check_linear", "hidden"]

FINE = 20
"""The grid has 2^20 steps in the bound."""


@dataclass(frozen=True)
class Central:
    """One release: noise of `multiplier` times `clip` on a sum over `expected` clients.

    multiplier: read by who adds noise alone, since solving for it takes seconds.
    key: exchange -> the secret of its noise.
    step: the grid that clients round to, each value up or down; None: they round nothing.
    correlated: what rounds have in common of their noise; None: nothing.   kept: the secret of it.
    """

    multiplier: Callable[[], float]
    clip: float | AdaptiveClip
    expected: float
    key: Callable[[int], bytes]
    step: float | None = None
    correlated: Mechanism | None = None
    kept: Callable[[], bytes] = bytes

    @property
    def on_update(self) -> float:
        """The noise multiplier of the update's own noise.

        Raises:
            PrivacyError: when counting who is below an adaptive bound would spend it all.
        """
        multiplier = self.multiplier()
        if isinstance(self.clip, float):
            return multiplier
        found = split_noise(multiplier, self.count_noise)
        if math.isnan(found):
            raise PrivacyError(
                f"privacy.clip.count_noise is {self.count_noise:g}, which is too little beside a "
                f"noise multiplier of {multiplier:g}: counting who is below the bound would spend "
                f"more than the update may; give more than {multiplier / 2:g}"
            )
        return found

    def deviation(self, state: State) -> float:
        """The standard deviation of the noise on the sum, as the bound stands."""
        bound = self.clip if isinstance(self.clip, float) else float(state[CLIP][NORM])
        return self.on_update * (bound + self._rounding(state))

    def deviations(self, state: State, rounds: int) -> list[float]:
        """That of each round so far, of which there were so many."""
        clip = self.clip
        bounds = [clip] * rounds if isinstance(clip, float) else state[CLIPS][NORM].tolist()
        assert len(bounds) == rounds, "each round had a bound"
        return [self.on_update * (bound + self._rounding(state)) for bound in bounds]

    def _rounding(self, state: State) -> float:
        """What rounding lengthens a cut update by: it moves each value by a step at most."""
        if self.step is None:
            return 0.0
        parts = [state.get(part, {}) for part in (ADAPTER, HEAD)]
        return self.step * math.sqrt(sum(v.numel() for tree in parts for v in tree.values()))

    @property
    def count_noise(self) -> float:
        """The noise on the count of who is below an adaptive bound; half of the multiplier is what
        would leave the update nothing to spend."""
        named = None if isinstance(self.clip, float) else self.clip.count_noise
        return max(self.expected / 20, self.multiplier()) if named is None else named


def check_linear(algorithm: Algorithm) -> None:
    """Refuse an algorithm whose server looks at single updates.

    Raises:
        CompositionError: names its aggregator.
    """
    if not algorithm.aggregator.linear:
        raise CompositionError(
            f"aggregator '{algorithm.aggregator.name}' of algorithm '{algorithm.name}' looks at "
            "single updates, but under privacy replies are summed on a grid to which noise is "
            "added; use 'fedavg'"
        )


def hidden(algorithm: Algorithm, stages: Sequence[Stage], central: Central) -> Algorithm:
    """The algorithm under central differential privacy of a client's share.

    stages: its own and the file's, before updates are cut.

    Raises:
        CompositionError: when something would leave clients in the open.
    """
    check_linear(algorithm)
    bound, first = central.clip, (uniform(), withhold(), *stages)
    if isinstance(bound, float):
        noise = _noise(central, least=bound)
        return replace(
            algorithm,
            stages=(*first, clip(norm=bound)),
            aggregator=on_grid(step=noise.step),
            server=noised(algorithm.server, noise),
        )
    least = bound.initial / REACH
    following = Following(
        bound.initial, least, bound.largest, bound.quantile, bound.learning_rate,
        lambda: central.count_noise,
    )  # fmt: skip
    noise = _noise(central, least=least)
    return replace(
        algorithm,
        client=cut_as_told(algorithm.client, most=bound.largest),
        stages=first,
        aggregator=on_grid(step=noise.step),
        server=following_quantile(noised(algorithm.server, noise), following, noise),
    )


def _noise(central: Central, *, least: float) -> Noise:
    step = central.step or 2.0 ** (math.floor(math.log2(least)) - FINE)
    return Noise(
        central.deviation, central.expected, step, central.key, central.correlated, central.kept
    )
