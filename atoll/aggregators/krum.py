"""Krum and what is built on it: updates that lie close to most others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from atoll.aggregators.coordinates import Ordered, by_coordinate, middle
from atoll.aggregators.distances import distances, measured, scores, weighing
from atoll.aggregators.gathered import robust, whole
from atoll.core import Aggregator, Tree
from atoll.tree import map_tree

__all__ = ["bulyan", "krum", "multi_krum"]


def krum(*, byzantine: int) -> Aggregator:
    """The one update whose n − f − 2 nearest others are nearest; of f byzantine among n ≥ 2f + 3.

    Source: Blanchard, El Mhamdi, Guerraoui, Stainer, Machine Learning with Adversaries: Byzantine
    Tolerant Gradient Descent (NeurIPS 2017, arXiv 1703.02757), section 4.
    """
    whole(byzantine, name="byzantine", aggregator="krum")

    def weigh(inner: Tensor) -> Tensor:
        return _share(_ranked(distances(inner), byzantine)[:1], len(inner))

    return robust("krum", weighing(weigh), least=_least(byzantine))


def multi_krum(*, byzantine: int, selected: int | None = None) -> Aggregator:
    """The mean of the `selected` updates (None: n − f) that Krum's score puts first; n ≥ 2f + 3.

    Source: Blanchard et al. (as `krum`), section 4, Multi-Krum.
    """
    whole(byzantine, name="byzantine", aggregator="multi_krum")
    if selected is not None:
        whole(selected, name="selected", aggregator="multi_krum", least=1)

    def weigh(inner: Tensor) -> Tensor:
        count = selected or max(1, len(inner) - byzantine)
        return _share(_ranked(distances(inner), byzantine)[:count], len(inner))

    return robust("multi_krum", weighing(weigh), least=max(_least(byzantine), selected or 1))


def bulyan(*, byzantine: int) -> Aggregator:
    """Of θ = n − 2f updates that Krum chooses one after another, the mean of the θ − 2f values of
    each coordinate that lie closest to their median; n ≥ 4f + 3.

    Towards the end fewer than 2f + 3 are left to choose from: then Krum looks at as many others
    as n − f − 2 still is, and at one at least. Of two values as far from the median, the lower.
    Source: El Mhamdi, Guerraoui, Rouault, The Hidden Vulnerability of Distributed Learning in
    Byzantium (ICML 2018, arXiv 1802.07927), section 4.
    """
    whole(byzantine, name="byzantine", aggregator="bulyan")

    def rule(updates: Sequence[Tree]) -> Tree:
        places, inner = measured(updates)
        # Who cannot be measured is one of them.
        bad = max(0, byzantine - (len(updates) - len(places)))
        chosen = [updates[int(places[k])] for k in _chosen(distances(inner), bad)]
        if not chosen:
            return map_tree(torch.zeros_like, updates[0])
        return by_coordinate(chosen, lambda ordered: _closest(ordered, 2 * bad))

    return robust("bulyan", rule, least=4 * byzantine + 3 if byzantine else 1)


def _chosen(squared: Tensor, byzantine: int) -> Iterator[int]:
    """Places of n − 2f updates that Krum takes one after another."""
    rest = torch.arange(len(squared))
    for _ in range(len(squared) - 2 * byzantine):
        first = int(_ranked(squared[rest][:, rest], byzantine)[0])
        yield int(rest[first])
        rest = torch.cat([rest[:first], rest[first + 1 :]])


def _least(byzantine: int) -> int:
    """Without anyone to tolerate, a single update is its own choice."""
    return 2 * byzantine + 3 if byzantine else 1


def _ranked(squared: Tensor, byzantine: int) -> Tensor:
    """Places in the order of Krum's score.

    Two that are each other's only neighbour have one score: first the one that is nearer to all.
    """
    order = squared.sum(dim=1).argsort(stable=True)
    nearest = scores(squared, max(1, len(squared) - byzantine - 2))
    return order[nearest[order].argsort(stable=True)]


def _share(places: Tensor, count: int) -> Tensor:
    weights = torch.zeros(count, dtype=torch.float64)
    weights[places] = 1 / len(places)
    return weights


def _closest(ordered: Ordered, dropped: int) -> Ordered:
    """The mean of each coordinate without the `dropped` values that are farthest from its median.

    Those that are kept stand side by side; where they begin is counted, since it pays to go on as
    long as the next value is closer to the median than the first.
    """
    count = ordered.shape[1]
    kept = count - dropped
    first, beyond = ordered[:, :dropped] / 2, ordered[:, kept:] / 2
    start = (first + beyond < middle(ordered)[:, None]).sum(axis=1, keepdims=True)
    place = np.arange(count)
    inside = (start <= place) & (place < start + kept)
    mean: Ordered = np.where(inside, ordered / kept, 0).sum(axis=1, dtype=np.float64)
    return mean
