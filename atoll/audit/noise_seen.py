"""The noise that a run's own code adds, measured: in a round's sum, or in a client's one step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import chi2
from torch import Tensor

from atoll.algorithms.fedavg import fedavg
from atoll.audit.canary_algorithm import Turns, mechanism_release, turns_release
from atoll.audit.canary_clients import Schedule, Scores, estimated, watched
from atoll.audit.claim import DELTA
from atoll.audit.trial import Trial
from atoll.config.privacy import Privacy
from atoll.core import Payload
from atoll.local.per_example import PerExample
from atoll.protection import Protection
from atoll.tree import Tree

__all__ = [
    "MOST_VALUES",
    "NoiseSeen",
    "measured",
    "noise_between",
    "noise_of_rounds",
    "noise_of_rows",
    "noise_of_turns",
    "shown",
    "travelling",
]

FEWEST = 100
"""Values below which nothing is said."""
MOST_VALUES = 50_000_000
"""Values of noise that are drawn, for rounds which have it in common or clients that share it."""
Z = 1.96
UNLIKELY = 3e-7
"""How often noise that is as promised may seem to be less: as five standard errors."""
CERTAIN = 5.0
"""Standard errors by which a tensor must have less noise than promised, of the many that are."""
PLAIN_STEP = {
    "optimizer": "sgd", "learning_rate": 1.0, "head_learning_rate": None, "momentum": 0.0,
    "weight_decay": 0.0, "max_steps": 1, "lr_scheduler_type": "constant", "warmup_steps": 0,
}  # fmt: skip


@dataclass(frozen=True)
class NoiseSeen:
    """The noise multiplier that shows, and its 95 % interval; None: it was not looked at.

    promised: what it should be.   less: whether it is less.   untried: why it was not looked at.
    """

    promised: float | None = None
    multiplier: float | None = None
    interval: tuple[float, float] | None = None
    less: bool = False
    untried: str = ""


TOO_FEW = NoiseSeen(untried=f"fewer than {FEWEST} values train, too few to measure noise by")


def noise_of_rounds(
    trial: Trial, settings: Privacy, promised: float, *, canaries: int, key: bytes
) -> NoiseSeen:
    """What canary clients see of one round under `settings`."""
    canaries = min(canaries, travelling(trial))
    if canaries < FEWEST:
        return TOO_FEW
    release = mechanism_release(trial, settings, canaries=canaries, key=key)
    return shown(watched(release, Schedule(), canaries=canaries, key=key), promised)


def noise_of_turns(
    trial: Trial, protection: Protection, promised: float, *, canaries: int, key: bytes
) -> NoiseSeen:
    """What canary clients see of all rounds, or of as many as there is time for, whose noise is
    taken back later."""
    values = travelling(trial)
    canaries = min(canaries, values)
    if canaries < FEWEST:
        return TOO_FEW
    turns = Turns(protection, min(protection.rounds, max(MOST_VALUES // values, 1)))
    release = turns_release(trial, turns, canaries=canaries, key=key)
    scores = watched(release, Schedule(), canaries=canaries, key=key)
    return shown(scores, promised, turns.signal)


def travelling(trial: Trial) -> int:
    """How many values a client sends."""
    (payload, *_) = trial.payloads().values()
    return sum(value.numel() for value in payload["update"].tree.values())


def shown(scores: Scores, promised: float, signal: float = 1.0) -> NoiseSeen:
    """The deviation of what is released at places with a canary, and at those without, in clips.

    It is less than promised where chance leaves so little to one in `UNLIKELY`; or where canaries,
    each of which moves its place by `signal`, are told from the others as by less noise: then a
    clip is larger than it says.
    """
    kinds = [scores.values[scores.included], scores.values[~scores.included]]
    free = len(scores.values) - len(kinds)
    found = math.sqrt(sum(float(np.square(one - one.mean()).sum()) for one in kinds) / free)
    # Squares of n normal values about two means, by σ², are χ² with n − 2 degrees of freedom.
    low, high = (found * math.sqrt(free / float(chi2.ppf(p, free))) for p in (0.975, 0.025))
    less = promised > 0 and float(chi2.cdf(free * (found / promised) ** 2, free)) < UNLIKELY
    far = estimated(scores, DELTA).beyond(signal * Schedule().separation(promised))
    return NoiseSeen(promised, found, (low, high), less or far)


def noise_of_rows(trial: Trial, promised: float) -> NoiseSeen:
    """What two clients with the same one row show, who take one plain step from the same model."""
    private = trial.bench.private
    assert private is not None, "rows are hidden"
    return noise_between(_one_step(trial, private), private.clip, promised)


def noise_between(payloads: Mapping[str, Payload], clip: float, promised: float) -> NoiseSeen:
    """What two updates show that were made of the same rows: all that they do not share is noise,
    but for dropout, which moves each by less than its clip, over all values together."""
    one, other = (payload["update"].tree for payload in payloads.values())
    apart = {name: (one[name] - other[name]).double() / (clip * math.sqrt(2)) for name in one}
    return measured(apart, promised)


def measured(noise: Tree, promised: float) -> NoiseSeen:
    """How much there is of noise that stands by itself, in clips."""
    values = torch.cat([value.flatten() for value in noise.values()])
    if len(values) < FEWEST:
        return TOO_FEW
    less = any(
        _deviation(own) * (1 + CERTAIN / math.sqrt(2 * own.numel())) < promised
        for own in (values, *noise.values())
        if own.numel() >= FEWEST
    )
    found, share = _deviation(values), Z / math.sqrt(2 * len(values))
    return NoiseSeen(promised, found, (found * (1 - share), found * (1 + share)), less)


def _one_step(trial: Trial, private: PerExample) -> dict[str, Payload]:
    row = next(own[0] for own in trial.rows.values() if own)
    bench = replace(
        trial.bench,
        examples=lambda client, split: [row],
        settings=trial.bench.settings.model_copy(update=PLAIN_STEP),
        private=replace(private, sampling_rate=1.0),
    )
    rows = {client: [row] for client in ("one", "other")}
    return replace(trial, algorithm=fedavg(bench), bench=bench, rows=rows).payloads()


def _deviation(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
