"""Noise on what clients sent together: central differential privacy of one client's share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from atoll.core import Channel, Context, Payload, Server, State, Tree
from atoll.errors import PrivacyError
from atoll.matrix import ROUND, Mechanism
from atoll.noise import Stream, derive, standard_normal

__all__ = ["Noise", "divided", "noised", "unveiled", "veiled"]

UPDATE = "update"
BUFFERS = "buffers"
"""The part of the state that correlated noise goes on from. It is as secret as the noise, and goes
to checkpoints: it stands there under a key that is forgotten at the end of the run."""
MARK = ":mark"
"""By which the key is known again, and told to nobody."""


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of one release.

    deviation: state -> its standard deviation, on the sum.   denominator: what the sum is divided
    by, which no client moves: the expected size of a cohort.   step: the grid of sum and noise.
    key: exchange -> the secret of its release.
    correlated: noise that later rounds take back in part; None: of its own each round.
    kept: the secret of what it goes on from.
    """

    deviation: Callable[[State], float]
    denominator: float
    step: float
    key: Callable[[int], bytes]
    correlated: Mechanism | None = None
    kept: Callable[[], bytes] = bytes


def noised(inner: Server, noise: Noise) -> Server:
    """The server `inner`, which is moved by (Σ x_k + N(0, σ²)) / (q·N) and by nothing else.

    The noise is rounded to the grid that the sum is on: a rounding of the sum with exact noise,
    which costs no privacy. An empty cohort is a release of noise alone.
    Source: McMahan, Ramage, Talwar, Zhang, Learning Differentially Private Recurrent Language
    Models (ICLR 2018, arXiv 1710.06963), Algorithm 1 with the estimator f̃_f.
    """

    def apply(context: Context, state: State, aggregate: Payload) -> State:
        deviation, total = noise.deviation(state), aggregate[UPDATE].tree
        drawn, kept = _drawn(context, total, state, noise)
        update: Tree = {}
        for name in sorted(total):
            whole = drawn[name].mul_(deviation / noise.step).round_().mul_(noise.step)
            update[name] = whole.add_(total[name]).div_(noise.denominator).float()
        return inner.apply(context, {**state, **kept}, {**aggregate, UPDATE: Channel(update)})

    return replace(inner, name=f"noised {inner.name}", apply=apply, noised=(UPDATE,))


def _drawn(context: Context, like: Tree, state: State, noise: Noise) -> tuple[Tree, State]:
    """Noise of deviation 1 for each name, and the parts of the state that later rounds need."""
    key = noise.key(context.exchange)
    if noise.correlated is None:
        names = {name: Stream(key, "noise", name) for name in like}
        return {name: standard_normal(stream, like[name].shape)
                for name, stream in names.items()}, {}  # fmt: skip
    stream, stored, kept = Stream(key, "noise"), state.get(BUFFERS), noise.kept()
    before = unveiled(stored, kept) if stored else noise.correlated.init(like)
    made, after = noise.correlated.noise(before, lambda shape: standard_normal(stream, shape))
    return made, {BUFFERS: veiled(after, kept)}


def veiled(buffers: Tree, key: bytes) -> Tree:
    """What correlated noise goes on from, unreadable without the key, and marked with it."""
    return {**_crossed(buffers, key), MARK: _mark(key)}


def unveiled(stored: Tree, key: bytes) -> Tree:
    """What `veiled` hid.

    Raises:
        PrivacyError: when that was under another key: what comes out would be no noise at all.
    """
    buffers = {name: value for name, value in stored.items() if name != MARK}
    if MARK not in stored or not torch.equal(stored[MARK], _mark(key)):
        raise PrivacyError(
            "what the noise goes on from (privacy.mechanism: blt) was hidden under another secret "
            "than the run has now: put back the run's .secret, or start a new run in another "
            "output_dir; a run that ended has forgotten it, and cannot go on"
        )
    return _crossed(buffers, key)


def _mark(key: bytes) -> torch.Tensor:
    return torch.tensor(list(derive(key, "mark")), dtype=torch.uint8)


def _crossed(buffers: Tree, key: bytes) -> Tree:
    """Bits that the key turns over; the same again turns them back.

    Each round has a stream of its own for each tensor, and a round has one state.
    """
    number, found = int(buffers[ROUND]), dict(buffers)
    for name in (name for name, value in buffers.items() if name != ROUND and value.numel()):
        value = buffers[name].contiguous()
        plain = value.view(-1).view(torch.uint8).numpy()
        words = Stream(key, "buffers", number, name).words(-(-len(plain) // 8))
        bits = np.bitwise_xor(plain, words.view(np.uint8)[: len(plain)])
        found[name] = torch.from_numpy(bits).view(value.dtype).view(value.shape)
    return found


def divided(inner: Server, denominator: float) -> Server:
    """The server `inner`, which is moved by Σ x_k / (q·N), of clients who added the noise.

    denominator: the expected size of a cohort, which no client moves.
    """

    def apply(context: Context, state: State, aggregate: Payload) -> State:
        total = aggregate[UPDATE].tree
        update = {name: (value / denominator).float() for name, value in total.items()}
        return inner.apply(context, state, {**aggregate, UPDATE: Channel(update)})

    return replace(inner, name=f"divided {inner.name}", apply=apply, noised=(UPDATE,))
