"""Channels whose values stay at the client, and a client that sends them all the same."""

from __future__ import annotations

import math

import pytest
import torch

from atoll.core import Channel, Context, Payload
from atoll.errors import PayloadError
from atoll.stages import withhold

CONTEXT = Context(0, "run", 1, 3, ("ada", "bo"), 9, client="ada")
WORK: Payload = {
    "update": Channel({"w": torch.tensor([1.0, -2.0])}),
    "examples": Channel({"count": torch.tensor(37)}, "sum"),
    "metrics": Channel({"loss": torch.tensor(0.5), "right": torch.tensor([1.0, 0.0])}),
}


def test_neither_counts_nor_losses_leave() -> None:
    left, _ = withhold().encode(CONTEXT, WORK, {})
    assert torch.equal(left["update"].tree["w"], WORK["update"].tree["w"])
    for name in ("examples", "metrics"):
        for key, value in WORK[name].tree.items():
            found = left[name].tree[key]
            assert (found.dtype, found.shape) == (value.dtype, value.shape)
            assert not found.any()
    assert withhold().decode(CONTEXT, left, left) == left


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("examples", "count", torch.tensor(1)),
        ("metrics", "loss", torch.tensor(math.nan)),
        ("metrics", "right", torch.tensor([0.0, 1e-30])),
    ],
)
def test_who_sends_them_is_refused(name: str, key: str, value: torch.Tensor) -> None:
    left, _ = withhold().encode(CONTEXT, WORK, {})
    left = {**left, name: left[name].with_tree({**left[name].tree, key: value})}
    for at in (CONTEXT, CONTEXT.at("")):
        with pytest.raises(PayloadError, match=rf"^channel '{name}' holds values, and none of"):
            withhold().decode(at, left, left)
