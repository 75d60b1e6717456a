"""Canary clients in the mechanism itself: its clip, its sum, its noise, as they are in runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from atoll.audit.canary_clients import Coins, Release, Values
from atoll.audit.trial import Trial, hidden_by, protected
from atoll.config.privacy import Privacy
from atoll.core import Channel, ClientWork, Payload, Reply, Request
from atoll.matrix import Strategy
from atoll.matrix.blt import coefficients
from atoll.noise import Stream
from atoll.protection import Protection
from atoll.tree import Tree

__all__ = ["Turns", "mechanism_release", "still", "turns_release"]

FAR = 1e3
"""A canary's one value: more than any clip."""


def mechanism_release(trial: Trial, settings: Privacy, *, canaries: int, key: bytes) -> Release:
    """What one round of FedAvg under `settings` makes of canaries, all of whom take part, in clips.

    Each has a place of its own, drawn among all values that travel, so that a tensor without noise
    shows.
    """
    seen, client = _places(trial, canaries, key)
    still_at, clip = trial.at_zero(), settings.clip
    bound = clip if isinstance(clip, float) else clip.initial

    def release(number: int, there: Coins) -> Values:
        rows = {str(canary): () for canary in np.flatnonzero(there)}
        asked = protected(replace(still_at, rows=rows), settings, rounds=1, client=client)
        # The released sum is divided by as many as took part.
        return seen(asked.after(1)) * (len(rows) / bound)

    return release


@dataclass(frozen=True)
class Turns:
    """The first rounds of a run whose rounds have noise in common.

    signal: how far a canary in the first cohort, and in each that it comes back in, moves what is
    released of these rounds, as a share of what the noise of the whole run was made for.
    """

    protection: Protection
    rounds: int

    @property
    def signal(self) -> float:
        """At most 1, which it is where all of the run's rounds are looked at."""
        _, alone = self._matrix()
        return float(np.linalg.norm(alone)) / self._strategy.sensitivity

    def cohort(self, number: int, exchange: int, roster: tuple[str, ...]) -> tuple[str, ...]:
        """All canaries have the same turn, the first one."""
        own = self._strategy.participation
        turn, between = divmod(number - 1, own.separation)
        return () if between or turn >= own.possible else roster

    def whitened(self, released: Values) -> Values:
        """Of rounds x + C⁻¹z at each canary's place: Cx + z, along what a canary is in Cx.

        released: [rounds, canaries].
        """
        matrix, alone = self._matrix()
        found: Values = (alone / np.linalg.norm(alone)) @ matrix @ released
        return found / self._strategy.sensitivity

    @property
    def _strategy(self) -> Strategy:
        together = self.protection.correlated
        assert together is not None, "rounds have noise in common"
        return together.strategy

    def _matrix(self) -> tuple[Values, Values]:
        """C, and its product with a canary's rounds."""
        column = coefficients(self._strategy.blt, self.rounds)
        apart = np.subtract.outer(np.arange(self.rounds), np.arange(self.rounds))
        matrix = np.where(apart >= 0, column[np.abs(apart)], 0.0)
        there = [bool(self.cohort(each + 1, 0, ("canary",))) for each in range(self.rounds)]
        return matrix, matrix @ np.array(there, float)


def turns_release(trial: Trial, turns: Turns, *, canaries: int, key: bytes) -> Release:
    """What FedAvg's first rounds, with noise in common, make of canaries that have the first turn;
    in clips, and with the deviation that the noise multiplier of the run says."""
    seen, client = _places(trial, canaries, key)
    protection, clip = turns.protection, turns.protection.settings.clip
    still_at = trial.at_zero()
    assert isinstance(clip, float), "the file was checked"

    def release(number: int, there: Coins) -> Values:
        rows = {str(canary): () for canary in np.flatnonzero(there)}
        asked = hidden_by(protection, replace(still_at, rows=rows), client)
        after = [seen(values) for values in asked.rounds(turns.rounds, turns.cohort)]
        moved = np.diff(np.stack([np.zeros(canaries), *after]), axis=0)
        return turns.whitened(moved * (protection.drawing.expected / clip))

    return release


def _places(trial: Trial, canaries: int, key: bytes) -> tuple[Callable[[Tree], Values], ClientWork]:
    """What a model holds at the canaries' places, and the work of a canary."""
    algorithm, (client, *_) = trial.algorithm, trial.rows
    like = algorithm.client.template(algorithm.server.broadcast(trial.state, client))
    names = list(like["update"].tree)
    sizes = [like["update"].tree[name].numel() for name in names]
    places = np.argsort(Stream(key, "places").uniform(sum(sizes)), kind="stable")[:canaries]
    assert len(places) == canaries, "there are more values than canaries"

    def work(requests: Sequence[Request]) -> Iterator[Reply]:
        for request in requests:
            place = int(places[int(request.context.client)])
            yield Reply(request.context.client, _canary(like, place))

    def seen(values: Tree) -> Values:
        found: Values = _flat(values, names).double().numpy()[places]
        return found

    return seen, replace(algorithm.client, work=work)


def _flat(values: Tree, names: Sequence[str]) -> Tensor:
    return torch.cat([values[name].flatten() for name in names])


def still(like: Payload) -> Payload:
    """A reply that counts as one row, and moves nothing."""
    return {name: channel.with_tree(_zeros(channel) if name == "update" else _counted(channel))
            for name, channel in like.items()}  # fmt: skip


def _canary(like: Payload, place: int) -> Payload:
    """A reply that counts as one row, and moves one value."""
    found = still(like)
    for value in found["update"].tree.values():
        if place < value.numel():
            value.view(-1)[place] = FAR
            break
        place -= value.numel()
    return found


def _counted(channel: Channel) -> Tree:
    return {name: torch.full(v.shape, float(v.numel() == 1), dtype=v.dtype)
            for name, v in channel.tree.items()}  # fmt: skip


def _zeros(channel: Channel) -> Tree:
    return {name: torch.zeros(v.shape, dtype=v.dtype) for name, v in channel.tree.items()}
