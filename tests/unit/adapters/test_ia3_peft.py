"""Stacked (IA)³ against peft: targets, names, shapes, logits, gradients."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import IA3Config, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

from atoll.adapters.ia3 import ia3_plan
from atoll.adapters.site import Frame
from atoll.config.adapter import Adapter
from atoll.errors import ModelError
from atoll.models.base import Base
from atoll.models.locate import Source
from tests.support.federation import Site, distance, site, stir
from tests.support.models import Zoo

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

K, ROWS = 3, 2
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", {}),
    "gpt2": ("gpt2", {}),
    "llama": ("llama", {}),
    "bert-named": ("bert", {"target_modules": ["query", "output.dense"]}),
    "llama-inner": (
        "llama",
        {"target_modules": ["q_proj", "up_proj"], "feedforward_modules": ["up_proj"]},
    ),
    "gpt2-regex": (
        "gpt2", {"target_modules": r".*\.1\.mlp\.c_.*", "feedforward_modules": r".*c_fc"},
    ),
}  # fmt: skip


def _section(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}


def _peft(zoo: Zoo, kind: str, **settings: Any) -> Any:
    auto = AutoModel if kind == "bert" else AutoModelForCausalLM
    model = auto.from_pretrained(zoo(kind), dtype=torch.float64).eval()
    return get_peft_model(model, IA3Config(fan_in_fan_out=kind == "gpt2", **settings)).eval()


def _keys(there: Site) -> dict[str, str]:
    """Our names, by PEFT's."""
    return {
        f"base_model.model.{name.removeprefix(there.base.prefix)}": name
        for name in there.values
        if not name.startswith("classifier.")
    }


@pytest.mark.parametrize("name", CASES)
def test_logits_and_gradients_are_pefts(zoo: Zoo, name: str) -> None:
    kind, settings = CASES[name]
    there = site(zoo, kind, adapter={"method": "ia3", **_section(settings)})
    peft = _peft(zoo, kind, **settings)
    keys = _keys(there)
    theirs = get_peft_model_state_dict(peft)
    # An idle pooler is scaled by peft and left out here.
    assert {key: value.shape for key, value in theirs.items() if "pooler" not in key} == {
        key: there.values[ours].shape for key, ours in keys.items()
    }
    trees = [stir(there.values, 20 + k, std=0.3) for k in range(K)]
    stacked = {n: torch.stack([t[n] for t in trees]).requires_grad_() for n in there.values}
    batch = there.bench.objective.collate(list(there.bench.examples("cy", "train")[: K * ROWS]))
    logits = there.built.model.forward(stacked, batch.inputs, Frame(K))
    pull = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).to(logits)
    (logits * pull).sum().backward()
    for k, tree in enumerate(trees):
        set_peft_model_state_dict(peft, {key: tree[ours] for key, ours in keys.items()})
        own = slice(k * ROWS, (k + 1) * ROWS)
        output = peft(**{n: value[own] for n, value in batch.inputs.items()})
        expected = output.logits if kind != "bert" else _pooled(output, batch, own, tree)
        torch.testing.assert_close(logits[own], expected, rtol=1e-10, atol=1e-10)
        peft.zero_grad()
        (expected * pull[own]).sum().backward()
        reached = {
            n.removesuffix(".default"): p.grad
            for n, p in peft.named_parameters()
            if p.requires_grad
        }
        found = {key: stacked[ours].grad[k] for key, ours in keys.items()}  # type: ignore[index]
        assert distance(found, {key: reached[key] for key in keys}) < 1e-9


def _pooled(output: Any, batch: Any, own: slice, tree: dict[str, Tensor]) -> Tensor:
    mask = batch.inputs["attention_mask"][own].unsqueeze(-1)
    pooled = (output.last_hidden_state * mask).sum(1) / mask.sum(1)
    return pooled @ tree["classifier.weight"].T + tree["classifier.bias"]


def test_peft_is_told_the_same_targets(zoo: Zoo) -> None:
    """A model that peft makes from our configuration has our values' names and no others."""
    there = site(zoo, "gpt2", adapter={"method": "ia3"})
    assert there.built.peft is not None
    config = there.built.peft.config()
    assert config.feedforward_modules == {f"transformer.h.{i}.mlp.c_proj" for i in (0, 1)}
    model = AutoModelForCausalLM.from_pretrained(zoo("gpt2"), dtype=torch.float64)
    assert get_peft_model_state_dict(get_peft_model(model, config)).keys() == _keys(there).keys()


def _vit() -> Base:
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        image_size=8, patch_size=4, num_labels=3,
    ))  # fmt: skip
    model.requires_grad_(False).eval()
    source = Source("x", "x")
    return Base(model, model, "", None, source, "AutoModelForImageClassification", "classifier")


def test_a_family_that_peft_does_not_know_is_scaled_at_the_same_places() -> None:
    plan = ia3_plan(_vit(), Adapter(method="ia3"), ["classifier"], ())
    assert [name.removeprefix("vit.") for name in plan.targets] == [
        "layers.0.attention.k_proj", "layers.0.attention.v_proj", "layers.0.mlp.fc2",
    ]  # fmt: skip
    assert [(site.before is not None, site.apply is not None) for site in plan.sites] == [
        (False, True), (False, True), (True, False),
    ]  # fmt: skip


class _Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(model_type="odd")
        self.first = nn.Linear(4, 4)


def test_a_model_without_blocks_is_refused() -> None:
    model = _Odd()
    base = Base(model, model, "", None, Source("x", "x"), "AutoModel", "head")
    with pytest.raises(ModelError, match="keys and values are not known; name them in"):
        ia3_plan(base, Adapter(method="ia3"), [], ())


def test_feed_forward_names_that_match_nothing_are_refused(zoo: Zoo) -> None:
    adapter = {"method": "ia3", "feedforward_modules": ("wo",)}
    with pytest.raises(ModelError, match=r"adapter\.feedforward_modules \('wo',\) matches none of"):
        site(zoo, adapter=adapter)
