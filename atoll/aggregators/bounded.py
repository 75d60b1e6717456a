"""A bound on what one client can change, that the server keeps itself."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from atoll.aggregators.averaging import mean
from atoll.aggregators.gathered import CHANNEL
from atoll.core import Aggregator, Payload, State, Tree
from atoll.errors import ConfigError
from atoll.tree import l2_norm, map_tree

__all__ = ["norm_bound"]


def norm_bound(*, norm: float) -> Aggregator:
    """The unweighted mean of updates x · min(1, norm / ‖x‖): f of n move it by at most norm · f/n.

    As stage `clip`, but done by the server, which need not trust a client to do it. It holds one
    running sum. An update whose norm is no finite number counts as zero.
    Source: Sun, Kairouz, Suresh, McMahan, Can You Really Backdoor Federated Learning? (2019, arXiv
    1911.07963), section 4, norm thresholding.
    """
    if not 0 < norm < math.inf:
        raise ConfigError(f"aggregator 'norm_bound': norm is {norm}; give a number above 0")
    inner = mean()

    def init(like: Payload) -> State:
        return inner.init(_with(like, like[CHANNEL].tree))

    def add(state: State, payload: Payload) -> State:
        return inner.add(state, _with(payload, _within(payload[CHANNEL].tree, norm)))

    return Aggregator("norm_bound", init, add, inner.finish, linear=False, weighted=False)


def _with(payload: Payload, update: Tree) -> Payload:
    """The payload with an update that no weight of its client's counts for more or less."""
    return {**payload, CHANNEL: replace(payload[CHANNEL], tree=update, weight=None)}


def _within(update: Tree, norm: float) -> Tree:
    met = l2_norm(update)
    if not math.isfinite(met):
        return map_tree(torch.zeros_like, update)
    factor = norm / max(met, norm)
    # The product of a float16 with a small factor would be rounded to its coarse grid.
    return map_tree(lambda x: (x.double() * factor).to(x.dtype) if factor < 1 else x, update)
