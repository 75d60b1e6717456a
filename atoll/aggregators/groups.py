"""Rules over mixtures of updates: means of random groups, or of each one's nearest neighbours."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from atoll import rng
from atoll.aggregators.distances import distances, measured, mixed
from atoll.aggregators.gathered import CHANNEL, robust, whole
from atoll.config import Call, resolve
from atoll.core import Aggregator, Channel, Tree
from atoll.errors import ConfigError
from atoll.tree import digest, map_tree

__all__ = ["across_groups", "across_neighbours", "grouped", "nnm"]


def grouped(*, rule: Call, size: int) -> Aggregator:
    """Aggregator `rule` over the means of random groups of `size` updates; see `across_groups`."""
    return across_groups(_named(rule, "grouped"), size=size)


def nnm(*, rule: Call, byzantine: int) -> Aggregator:
    """Aggregator `rule` after nearest neighbour mixing; see `across_neighbours`."""
    return across_neighbours(_named(rule, "nnm"), byzantine=byzantine)


def across_groups(rule: Aggregator, *, size: int) -> Aggregator:
    """`rule` over the means of random groups, each of `size` updates or more.

    f byzantine clients spoil at most f of the floor(n / size) groups. Groups of two make honest
    updates more alike where clients' rows differ; larger ones are what a server could still
    compare if it saw nothing but the sums of groups. They are drawn anew for each set of answers.
    Source: Karimireddy, He, Jaggi, Byzantine-Robust Learning on Heterogeneous Datasets via
    Bucketing (ICLR 2022, arXiv 2006.09365), Algorithm 1; but the last group is never a small one.
    """
    whole(size, name="size", aggregator="grouped", least=2)

    def combine(updates: Sequence[Tree]) -> Tree:
        return _folded(rule, mixed(updates, _shares(_drawn(updates, size), len(updates))))

    return replace(robust("grouped", combine, least=size * rule.least), group=size, rule=rule)


def across_neighbours(rule: Aggregator, *, byzantine: int) -> Aggregator:
    """`rule` over updates of which each was replaced by the mean of its n − f nearest, itself too.

    Source: Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan, Fixing by Mixing: A Recipe for
    Optimal Byzantine ML under Heterogeneity (AISTATS 2023, arXiv 2302.01772), Algorithm 2.
    """
    whole(byzantine, name="byzantine", aggregator="nnm")

    def combine(updates: Sequence[Tree]) -> Tree:
        places, inner = measured(updates)
        near = [updates[place] for place in places.tolist()]
        if not near:
            return map_tree(torch.zeros_like, updates[0])
        kept = max(1, len(near) - byzantine)
        members = distances(inner).argsort(dim=1, stable=True)[:, :kept]
        return _folded(rule, mixed(near, _shares(members.tolist(), len(near))))

    return robust("nnm", combine, least=max(rule.least, 2 * byzantine + 1))


def _named(rule: Call, where: str) -> Aggregator:
    """The aggregator that the experiment file names inside another.

    Raises:
        ConfigError: for a name or argument that is not there, and for code that is not Atoll's.
    """
    if ":" in rule.name:
        raise ConfigError(
            f"aggregator '{where}': rule is {rule.name}; only Atoll's own rules are named here. "
            "Write an aggregator that calls across_groups or across_neighbours of "
            "atoll.aggregators.groups with yours, and name that"
        )
    made = resolve(rule, package="atoll.aggregators", where=lambda path: path)()
    assert isinstance(made, Aggregator), "the package lists factories of aggregators"
    return made


def _drawn(updates: Sequence[Tree], size: int) -> list[list[int]]:
    """Random groups, the same ones for the same updates in any order.

    They follow from all updates together: no client knows its neighbours when it answers.
    """
    marks = [bytes(digest(update).tolist()) for update in updates]
    everyone = hashlib.sha256(b"".join(sorted(marks))).hexdigest()
    ordered = sorted(range(len(marks)), key=marks.__getitem__)
    drawn = rng.numpy_generator(0, "groups", everyone).permutation(ordered)
    return [group.tolist() for group in np.array_split(drawn, len(drawn) // size)]


def _shares(groups: Sequence[Sequence[int]], count: int) -> Tensor:
    """Weights of the mean of each group, [groups, count]."""
    weights = torch.zeros(len(groups), count, dtype=torch.float64)
    for row, group in zip(weights, groups, strict=True):
        row[group] = 1 / len(group)
    return weights


def _folded(rule: Aggregator, updates: Sequence[Tree]) -> Tree:
    like = {CHANNEL: Channel(updates[0])}
    state = rule.init(like)
    for update in updates:
        state = rule.add(state, {CHANNEL: Channel(update)})
    return rule.finish(state)[CHANNEL].tree
