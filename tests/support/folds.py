"""Replies that are folded by an aggregator, as a round folds them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from atoll.core import Aggregator, Channel, Payload

__all__ = ["Vectors", "fold", "fold_vectors", "seeded_reply"]

Vectors = NDArray[np.float64]


def seeded_reply(seed: int, *, weight: float = 1.0) -> Payload:
    """A reply with all kinds of channels, whose values follow from the seed."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "update": Channel(
            {
                "a": torch.randn(2, 3, generator=generator),
                "b": torch.randn((), generator=generator),
            },
            weight="weight",
        ),
        "weight": Channel({"value": torch.tensor(weight)}, reduce="sum"),
        "examples": Channel({"count": torch.tensor(weight)}, reduce="sum"),
        "metrics": Channel({"loss": torch.tensor(float(seed))}, weight="examples"),
        "ids": Channel({"rows": torch.tensor([seed])}, reduce="none"),
    }


def fold(
    replies: Sequence[Payload], aggregator: Aggregator, like: Payload | None = None
) -> Payload:
    """What an aggregator makes of replies, from shapes alone at the beginning."""
    shapes = {
        name: channel.with_tree({key: value.to("meta") for key, value in channel.tree.items()})
        for name, channel in (like or seeded_reply(0)).items()
    }
    state = aggregator.init(shapes)
    for reply in replies:
        state = aggregator.add(state, reply)
    return aggregator.finish(state)


def fold_vectors(aggregator: Aggregator, vectors: Vectors) -> Vectors:
    """The aggregate of updates that are rows [n, d], cut into tensors of three shapes."""
    width = vectors.shape[1]
    assert width >= 6, "a scalar, a matrix, and a vector of the rest"
    replies = [_cut(torch.tensor(row, dtype=torch.float64)) for row in vectors]
    blank = _cut(torch.zeros(width, dtype=torch.float64))
    tree = fold(replies, aggregator, blank)["update"].tree
    return torch.cat([tree[name].reshape(-1) for name in ("c", "a", "b")]).numpy()


def _cut(vector: torch.Tensor) -> Payload:
    parts = {"c": vector[0], "a": vector[1:5].view(2, 2), "b": vector[5:]}
    return {"update": Channel(parts)}
