"""The number of clients in one pass: more for small batches, never more than there are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from atoll.adapters.site import Frame
from atoll.local import group
from atoll.local.group import group_size
from atoll.local.per_example import PerExample
from tests.support.federation import Site, labelled_rows, site
from tests.support.models import Zoo

MANY = {f"client{i}": 6 for i in range(100)}


def _site(zoo: Zoo, *, batch: int = 1, longest: int = 8, clients: int = 100) -> Site:
    rows = labelled_rows(dict(list(MANY.items())[:clients]), longest=longest)
    return site(zoo, train={"per_device_train_batch_size": batch}, rows=rows)


@pytest.mark.parametrize(("width", "tokens"), [(32, 1280), (128, 1280), (384, 512), (1024, 192)])
def test_a_cpu_takes_as_many_tokens_as_its_cache_holds(
    width: int, tokens: int, zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = _site(zoo, batch=4)
    monkeypatch.setattr(group, "_width", lambda bench: width)
    rows = [len(x) for client in there.clients[:8] for x in there.bench.examples(client, "train")]
    size = group_size(there.bench, clients=there.clients)
    assert 0.75 * tokens <= size * 4 * sum(rows) / len(rows) <= 1.25 * tokens
    assert size < 100


def test_the_width_is_that_of_the_narrowest_adapted_layer(zoo: Zoo) -> None:
    assert group._width(_site(zoo).bench) == 32
    assert group._width(site(zoo, adapter={"target_modules": ("output.dense",)}).bench) == 32
    assert group._width(site(zoo, "llama").bench) == 64


def test_bigger_batches_and_longer_rows_make_smaller_groups(zoo: Zoo) -> None:
    sizes = [
        group_size(there.bench, clients=there.clients)
        for there in (_site(zoo, batch=4), _site(zoo, batch=8), _site(zoo, batch=8, longest=40))
    ]
    assert sizes == sorted(set(sizes), reverse=True)
    assert sizes[-1] >= 1


def test_never_more_than_there_are_and_never_less_than_one(zoo: Zoo) -> None:
    there = _site(zoo, clients=3)
    assert group_size(there.bench, clients=there.clients) == 3
    there = _site(zoo, batch=600, clients=3)
    assert group_size(there.bench, clients=there.clients) == 1
    empty = replace(there.bench, examples=lambda client, split: [])
    assert group_size(empty, clients=there.clients) == 1


def test_little_memory_makes_small_groups(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    there = _site(zoo)
    free = 4_000_000
    monkeypatch.setattr(group, "_free_bytes", lambda device: free)
    size = group_size(there.bench, clients=there.clients)
    assert 1 <= size < 30
    free = 1
    assert group_size(there.bench, clients=there.clients) == 1


def test_rows_that_are_hidden_have_values_of_their_own(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = _site(zoo, batch=4)
    monkeypatch.setattr(group, "_free_bytes", lambda device: 40_000_000)
    private = PerExample(1.0, 1.0, lambda context: bytes(32))
    hidden = group_size(replace(there.bench, private=private), clients=there.clients)
    plain = group_size(there.bench, clients=there.clients)
    assert 1 <= hidden < plain


def test_the_estimate_is_near_what_training_holds(zoo: Zoo) -> None:
    """Tensors that autograd keeps for one client, counted once each by their storage."""
    there = _site(zoo, batch=4, longest=14)
    values = {n: v.unsqueeze(0).requires_grad_() for n, v in there.values.items()}
    examples = there.bench.examples("client0", "train")[:4]
    batch = there.bench.objective.collate(examples)
    length = max(map(len, examples))
    held: dict[int, int] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        if not value.is_leaf:
            held[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(keep(x)) or x, lambda x: x):
        there.bench.model.forward(values, batch.inputs, Frame(1))
    saved, tokens, own = group._one_row(there.bench, max(examples, key=len))
    assert tokens == length
    estimate = saved * 4 + group.BUFFERS * own
    assert 0.7 < estimate / (sum(held.values()) + 5 * sum(v.nbytes for v in values.values())) < 4
