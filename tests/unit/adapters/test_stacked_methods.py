"""K uneven clients in one forward pass give what each gives alone, for every method that stacks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from atoll.adapters.site import Frame
from tests.support.federation import Site, distance, moved, site, stir
from tests.support.methods import STACKED
from tests.support.models import Zoo

TRAIN: dict[str, Any] = {
    "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "max_grad_norm": 0.5,
}  # fmt: skip
SGD = {**TRAIN, "optimizer": "sgd", "momentum": 0.5, "learning_rate": 0.05}
# The gradient of a key's bias is zero in theory: epsilon stands above its rounding noise.
ADAMW = {**TRAIN, "optimizer": "adamw", "learning_rate": 1e-3, "adam_epsilon": 1e-4,
         "weight_decay": 0.01}  # fmt: skip


@pytest.fixture(scope="module", params=STACKED)
def there(request: pytest.FixtureRequest, zoo: Zoo) -> Site:
    kind, adapter = STACKED[request.param]
    return site(zoo, kind, adapter=adapter, train=TRAIN)


@pytest.mark.parametrize("train", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_stacked_is_sequential(there: Site, train: dict[str, Any]) -> None:
    assert there.built.alone is None
    there = there.with_train(**train)
    # Starts of their own make the rows of the stack differ.
    own = {client: stir(there.values, 10 + k) for k, client in enumerate(there.clients)}
    stacked, failed = there.train(group_size=len(there.clients), own=own)
    alone, failed_alone = there.train(group_size=1, own=own)
    assert not failed
    assert not failed_alone
    assert len({one.steps for one in alone.values()}) > 2, "the clients are not uneven"
    for client, one in alone.items():
        seen = {n: v for n, v in moved(one).items() if not n.endswith("key.bias")}
        found = {n: v for n, v in moved(stacked[client]).items() if n in seen}
        assert distance(found, seen) < 1e-9, client
        assert stacked[client].loss == pytest.approx(one.loss, rel=1e-9)
        assert min(float(value.abs().max()) for value in seen.values()) > 0, "it did not train"


@pytest.mark.parametrize("name", ["bert-houlsby", "gpt2-ia3", "llama-layers"])
def test_in_single_precision(zoo: Zoo, name: str) -> None:
    kind, adapter = STACKED[name]
    there = site(zoo, kind, adapter=adapter, train=SGD, dtype="float32")
    stacked, _ = there.train(group_size=5)
    alone, _ = there.train(group_size=1)
    for client, one in alone.items():
        assert distance(stacked[client].end, one.end) < 2e-6


@pytest.mark.parametrize("name", [name for name in STACKED if "lora" not in name])
def test_values_that_are_not_stacked_serve_every_client(zoo: Zoo, name: str) -> None:
    """[1, …] for K clients, as a held head is broadcast."""
    kind, adapter = STACKED[name]
    there = site(zoo, kind, adapter=adapter)
    values = stir(there.values, 3)
    batch = there.bench.objective.collate(list(there.bench.examples("cy", "train")[:4]))
    one = {n: v.unsqueeze(0) for n, v in values.items()}
    two = {n: v.unsqueeze(0).expand(2, *v.shape) for n, v in values.items()}
    found = there.built.model.forward(one, batch.inputs, Frame(2))
    torch.testing.assert_close(found, there.built.model.forward(two, batch.inputs, Frame(2)))


def test_the_first_values_change_nothing(there: Site) -> None:
    batch = there.bench.objective.collate(list(there.bench.examples("cy", "train")[:4]))
    values = {n: v.unsqueeze(0) for n, v in there.values.items()}
    found = there.built.model.forward(values, batch.inputs, Frame(1))
    output = there.base.model(**batch.inputs)
    plain = output if isinstance(output, torch.Tensor) else output.logits
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)
