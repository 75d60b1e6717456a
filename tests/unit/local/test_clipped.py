"""Client work that cuts its update to the bound that it is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch

from atoll.core import Channel, ClientWork, Context, Failure, Payload, Reply, Request, validate
from atoll.local.clipped import cut_as_told
from atoll.servers.quantile import BELOW, CLIP

CONTEXT = Context(0, "run", 1, 0, ("a",), 1, "a")


def _work(update: torch.Tensor) -> ClientWork:
    payload = {"update": Channel({"w": update}, "mean")}

    def work(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
        yield from (Reply(request.context.client, payload) for request in requests)

    return ClientWork("train", lambda broadcast: payload, work, ("update",))


def _answer(update: torch.Tensor, broadcast: Payload) -> Reply | Failure:
    (found,) = cut_as_told(_work(update), most=10.0).work([Request(CONTEXT, broadcast)])
    return found


def _bound(*values: float) -> Payload:
    return {CLIP: Channel({"norm": torch.tensor(values).squeeze()}, "none")}


@pytest.mark.parametrize(("norm", "below"), [(5.0, 0.5), (4.999, -0.5), (1.0, -0.5)])
def test_an_update_is_cut_and_says_whether_it_was_longer(norm: float, below: float) -> None:
    update = torch.tensor([3.0, 4.0])
    found = _answer(update, _bound(norm))
    assert isinstance(found, Reply)
    assert torch.allclose(found.payload["update"].tree["w"], update * min(1.0, norm / 5), rtol=1e-6)
    assert float(torch.linalg.vector_norm(found.payload["update"].tree["w"])) <= norm
    assert float(found.payload[BELOW].tree["value"]) == below
    work = cut_as_told(_work(update), most=10.0)
    validate(found.payload, work.template({}))
    assert (work.channels, work.bounded) == (("update", BELOW), ("update", BELOW))


@pytest.mark.parametrize(
    ("broadcast", "told"),
    [
        ({}, "missing"),
        (_bound(0.0), "0.0"),
        (_bound(-1.0), "-1.0"),
        (_bound(10.5), "10.5"),
        (_bound(float("nan")), "nan"),
        (_bound(1.0, 2.0), "1.0, 2.0"),
    ],
)
def test_a_bound_that_is_none(broadcast: Payload, told: str) -> None:
    found = _answer(torch.ones(2), broadcast)
    assert isinstance(found, Failure)
    assert told in found.message
    assert "expected a number above 0 and up to 10" in found.message
