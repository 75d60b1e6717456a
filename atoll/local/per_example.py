"""Differential privacy for each row of a client: DP-SGD inside its local training.

Abadi et al. 2016, Deep Learning with Differential Privacy, arXiv 1607.00133, algorithm 1. In each
step of a round

    a row is in the batch with chance q, by a coin of its own;
    its gradient over all that trains is scaled to a norm of at most C;
    g̃ = (Σ clipped gradients + N(0, (z·C)²)) / (q·n)         n: the client's rows

and the optimiser goes on from g̃. Two data sets are neighbours when one row of one is left blank in
the other: n itself, and with it q, the steps and what g̃ is divided by, is no secret.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from atoll.accounting import Poisson, Release
from atoll.config.sections import Train
from atoll.core import Context, Request
from atoll.errors import ConfigError
from atoll.noise import Stream, derive, standard_normal
from atoll.tree import digest

__all__ = ["PerExample", "exchange_key", "hidden", "poisson_steps"]

GRID = 20
"""Released sums lie on a grid of at most σ·2⁻²⁰: fine beside the noise, coarse beside a float."""


@dataclass(frozen=True)
class PerExample:
    """How a client's rows are hidden in its own update.

    clip: C, which stands in the place of train.max_grad_norm.
    noise_multiplier: z; 0 clips and hides nothing.
    key: the secret of a moment, 32 bytes; the same moment has the same one. Coins, noise, dropout
        and masked tokens of an exchange come from it.
    sampling_rate: q; None: so that the batches that train.* names are expected.

    Raises:
        ConfigError: for a number that is out of its range.
    """

    clip: float
    noise_multiplier: float
    key: Callable[[Context], bytes]
    sampling_rate: float | None = None

    def __post_init__(self) -> None:
        rate = self.sampling_rate
        if not (0 < self.clip < math.inf):
            raise ConfigError(f"the clip of a row's gradient is {self.clip}; it must be above 0")
        if not (0 <= self.noise_multiplier < math.inf):
            raise ConfigError(
                f"the noise multiplier is {self.noise_multiplier}; it must be 0 or above"
            )
        if rate is not None and not (0 < rate <= 1):
            raise ConfigError(f"the sampling rate of rows is {rate}; it must be in (0, 1]")

    def spends(self, settings: Train, rows: int, epochs: float | None = None) -> Release:
        """What one exchange costs a client of so many rows, known before any of them is read.

        epochs: passes over the rows, instead of the settings'.
        """
        rate = self.sampling_rate
        if rate is None:
            size = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
            rate = min(1.0, size / rows)
        steps = settings.max_steps if epochs is None else None
        if steps is None:
            passes = settings.num_train_epochs if epochs is None else epochs
            # Rates such as 1/7 make 6.9999 or 7.0001 steps of 7.
            steps = max(1, math.ceil(passes / rate - 1e-6))
        return Release(
            unit="example",
            noise_multiplier=self.noise_multiplier,
            sampling=Poisson(rate=rate),
            steps=steps,
        )


def exchange_key(private: PerExample, request: Request) -> bytes:
    """The secret of one client's exchange.

    What was asked is part of its address: noise that hid one answer must not hide another one, the
    difference of which would show what is under it.
    """
    at = request.context
    asked = derive(private.key(at), "per example", at.run, at.client, at.exchange)
    for name, channel in sorted(request.payload.items()):
        asked = derive(asked, name, bytes(digest(channel.tree).tolist()).hex())
    return asked


def poisson_steps(key: bytes, rate: float, *, steps: int, rows: int) -> list[list[int]]:
    """The rows of each step, each by its own coin; a step may have none."""
    stream = Stream(key, "rows")
    return [stream.coins(rate, rows).nonzero()[0].tolist() for _ in range(steps)]


def hidden(total: Tensor, private: PerExample, key: bytes, step: int) -> Tensor:
    """A sum [P] in float64 under noise, rounded: no low bit of it tells what is under the noise.

    Rounding what is exact to 2⁻⁵³ costs no privacy (Mironov 2012, On Significance of the Least
    Significant Bits for Differential Privacy).
    """
    deviation = private.clip * private.noise_multiplier
    if not deviation:
        return total
    grid = 2.0 ** (math.floor(math.log2(deviation)) - GRID)
    noise = standard_normal(Stream(key, "noise", step), total.shape).mul_(deviation)
    return noise.add_(total.cpu()).div_(grid).round_().mul_(grid).to(total)
