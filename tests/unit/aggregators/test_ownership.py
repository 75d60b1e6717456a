"""What is aggregated is the server's to use up: it shares no memory with a client's payload."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from atoll import aggregators
from atoll.config import Call
from atoll.core import Channel, Payload

NEEDED: Mapping[str, Mapping[str, object]] = {
    "bulyan": {"byzantine": 0}, "grouped": {"rule": Call("median"), "size": 2},
    "krum": {"byzantine": 0}, "multi_krum": {"byzantine": 0},
    "nnm": {"rule": Call("median"), "byzantine": 0}, "norm_bound": {"norm": 1e9},
    "on_grid": {"step": 2.0**-40}, "trimmed_mean": {"fraction": 0.0},
}  # fmt: skip


def _reply(number: int) -> Payload:
    weight = Channel({"value": torch.ones(())}, "sum")
    update = Channel(
        {"a": torch.randn(3, 4), "b": torch.full((2,), float(number))}, weight="weight"
    )
    return {"update": update, "weight": weight}


@pytest.mark.parametrize("name", aggregators.__all__)
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_no_memory_is_shared_with_a_payload(name: str, count: int) -> None:
    made = vars(aggregators)[name](**NEEDED.get(name, {}))
    if 0 < count < made.least:
        return
    like, replies = _reply(7), [_reply(number) for number in range(count)]
    state = made.init(like)
    for reply in replies:
        state = made.add(state, reply)
    found = made.finish(state)
    theirs = {
        x.untyped_storage().data_ptr()
        for one in (like, *replies)
        for x in one["update"].tree.values()
    }
    for value in found["update"].tree.values():
        assert value.untyped_storage().data_ptr() not in theirs
