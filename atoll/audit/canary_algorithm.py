"""Canary clients in the mechanism itself: its clip, its sum, its noise, as they are in runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from atoll.audit.canary_clients import Coins, Release, Values
from atoll.audit.trial import Trial, protected
from atoll.config.privacy import Privacy
from atoll.core import Channel, Payload, Reply, Request
from atoll.local.bench import model_values
from atoll.noise import Stream
from atoll.tree import Tree

__all__ = ["mechanism_release"]

FAR = 1e3
"""A canary's one value: more than any clip."""


def mechanism_release(trial: Trial, settings: Privacy, *, canaries: int, key: bytes) -> Release:
    """What one round of FedAvg under `settings` makes of canaries, all of whom take part.

    Each has a place of its own, drawn among all values that travel, so that a tensor without noise
    shows.
    """
    algorithm, (client, *_) = trial.algorithm, trial.rows
    like = algorithm.client.template(algorithm.server.broadcast(trial.state, client))
    names = list(like["update"].tree)
    sizes = [like["update"].tree[name].numel() for name in names]
    places = np.argsort(Stream(key, "places").uniform(sum(sizes)), kind="stable")[:canaries]
    assert len(places) == canaries, "there are more values than canaries"
    before = _flat(model_values(trial.state), names)

    def work(requests: Sequence[Request]) -> Iterator[Reply]:
        for request in requests:
            place = int(places[int(request.context.client)])
            yield Reply(request.context.client, _canary(like, place))

    def release(number: int, there: Coins) -> Values:
        rows = {str(canary): () for canary in np.flatnonzero(there)}
        seen = replace(trial, rows=rows)
        seen = protected(seen, settings, rounds=1, client=replace(algorithm.client, work=work))
        moved: Values = (_flat(seen.after(1), names) - before).double().numpy()[places]
        # The released sum is divided by as many as took part.
        return moved * len(rows)

    return release


def _flat(values: Tree, names: Sequence[str]) -> Tensor:
    return torch.cat([values[name].flatten() for name in names])


def _canary(like: Payload, place: int) -> Payload:
    """A reply that counts as one row, and moves one value."""
    return {
        name: channel.with_tree(
            _with_one(channel, place) if name == "update" else _counted(channel)
        )
        for name, channel in like.items()
    }


def _counted(channel: Channel) -> Tree:
    return {name: torch.full(v.shape, float(v.numel() == 1), dtype=v.dtype)
            for name, v in channel.tree.items()}  # fmt: skip


def _with_one(channel: Channel, place: int) -> Tree:
    tree = {name: torch.zeros(v.shape, dtype=v.dtype) for name, v in channel.tree.items()}
    for value in tree.values():
        if place < value.numel():
            value.view(-1)[place] = FAR
            break
        place -= value.numel()
    return tree
