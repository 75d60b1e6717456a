"""Gradient checkpointing: the same numbers, blocks that run twice, and less that is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from atoll.adapters.blocks import block_lists
from atoll.adapters.site import Frame
from atoll.adapters.stacked import StackedModel
from atoll.errors import ModelError
from atoll.local.boundary import find_boundary
from atoll.local.group import _one_row
from atoll.local.prefix import Prefix, memory_shelf
from tests.support.federation import Site, distance, moved, probe, site
from tests.support.gallery import Gallery
from tests.support.models import Zoo
from tests.unit.local.test_local_stack_tasks import dual, vit

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

SGD: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.05, "max_steps": 2}
DROPS = {"r": 3, "lora_dropout": 0.2}
Made = Callable[[Zoo, Gallery], Site]


def of(kind: str, group: int = 3, **adapter: Any) -> tuple[Made, int]:
    return (lambda zoo, gallery: site(zoo, kind, adapter=adapter, train=SGD)), group


SITES: dict[str, tuple[Made, int]] = {
    "llama": of("llama", **DROPS),
    "gpt2": of("gpt2", **DROPS),
    "bert": of("bert", **DROPS),
    "vit": (lambda zoo, gallery: vit(zoo, gallery, train=SGD), 3),
    "clip": (lambda zoo, gallery: dual(zoo, gallery, train=SGD), 3),
    "houlsby": of("bert", method="bottleneck", placement="houlsby"),
    "ia3": of("llama", method="ia3"),
    "layers": of("gpt2", method="layers", num_layers=1),
    # One client at a time, with the model's or PEFT's own dropout.
    "full": of("bert", 1, method="full"),
    "dora": of("llama", 1, method="dora", config={"r": 2, "lora_dropout": 0.2}),
    # Its values are shared among layers.
    "lily": of("bert", 1, method="lily"),
}


@pytest.mark.parametrize("name", SITES)
def test_training_has_the_same_numbers(name: str, zoo: Zoo, gallery: Gallery) -> None:
    made, group_size = SITES[name]
    there = made(zoo, gallery)
    plain, _ = there.train(group_size=group_size)
    runs = _counted(there.bench.model)
    there.train(group_size=group_size)
    once = len(runs)
    there.bench.model.recompute()
    runs.clear()
    again, failures = there.train(group_size=group_size)
    assert not failures
    assert len(runs) == 2 * once > 0
    for client, expected in plain.items():
        assert distance(moved(again[client]), moved(expected)) < 1e-9
        assert again[client].loss == pytest.approx(expected.loss, rel=1e-10)


def _counted(model: StackedModel) -> list[str]:
    """The runs of the first part of the last block."""
    runs: list[str] = []
    block = model.model.get_submodule(block_lists(model.model)[-1][-1])
    part = next(m for m in block.modules() if m is not block and not any(m.children()))
    part.register_forward_hook(lambda module, args, out: runs.append("run"))
    return runs


def test_blocks_whose_outputs_are_known_are_not_run_again(zoo: Zoo) -> None:
    adapter = {"target_modules": r"model\.layers\.1\..*", "lora_dropout": 0.2}
    there = site(zoo, "llama", adapter=adapter, train=SGD)
    plain, _ = there.train(group_size=2)
    rows = {client: there.bench.examples(client, "train") for client in there.clients}
    boundary = find_boundary(there.bench.model, probe(there.bench.objective, rows))
    assert boundary is not None
    prefix = Prefix(boundary, there.bench.objective.collate, memory_shelf(), b"")
    there.bench.model.recompute()
    kept, _ = replace(there, bench=replace(there.bench, prefix=prefix)).train(group_size=2)
    for client, expected in plain.items():
        assert distance(moved(kept[client]), moved(expected)) < 1e-9
    assert all("forward" not in vars(block) for block in boundary.below)


def test_less_is_kept_for_backward(zoo: Zoo) -> None:
    there = site(zoo, "llama", dtype="float32")
    row = there.bench.examples("cy", "train")[0]
    whole, *_ = _one_row(there.bench, row)
    there.bench.model.recompute()
    part, *_ = _one_row(there.bench, row)
    # Of two blocks one at a time, beside what stands before and after them.
    assert 0.4 * whole < part < 0.75 * whole


class _Block(nn.Module):
    """Draws dropout in its own forward pass, as OPT's and BART's do in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(self.layer(x), p=0.5, training=self.training)


def test_frozen_blocks_stay_without_dropout() -> None:
    model = nn.ModuleDict({"layers": nn.ModuleList([_Block(), _Block()])})
    model.forward = lambda x: model["layers"][1](model["layers"][0](x))
    model.requires_grad_(False).eval()
    stacked, x = StackedModel(model, ()), torch.randn(3, 4, requires_grad=True)
    stacked.recompute()
    out = stacked.forward({}, {"x": x}, Frame(1))
    assert torch.equal(out, model(x=x))
    (gradient,) = torch.autograd.grad(out.sum(), x)
    weights = model["layers"][1].layer.weight @ model["layers"][0].layer.weight
    torch.testing.assert_close(gradient, weights.sum(0).expand(3, 4))


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(ModelError, match="gradient_checkpointing is true, but the model has no"):
        StackedModel(nn.Linear(2, 2), ()).recompute()
