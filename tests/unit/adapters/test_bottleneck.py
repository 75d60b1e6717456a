"""Bottleneck adapters against their formula, written out on the blocks of each family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AlbertConfig,
    AlbertModel,
    AutoModel,
    AutoModelForCausalLM,
    CLIPConfig,
    CLIPModel,
    Qwen3MoeConfig,
    Qwen3MoeModel,
    T5Config,
    T5Model,
    ViTConfig,
    ViTModel,
)

from atoll.adapters.blocks import attention_outputs, block_lists, feedforward_outputs
from atoll.adapters.bottleneck import bottleneck_site
from atoll.adapters.site import Frame
from atoll.adapters.stacked import StackedModel
from atoll.errors import ModelError
from tests.support.federation import site, stir
from tests.support.models import Zoo

SMALL: dict[str, Any] = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
IMAGE: dict[str, Any] = {**SMALL, "image_size": 8, "patch_size": 4}


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 6, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@pytest.mark.parametrize(
    ("activation", "f"),
    [
        ("relu", lambda x: x.clamp(min=0)),
        ("tanh", torch.tanh),
        ("silu", lambda x: x / (1 + torch.exp(-x))),
        ("gelu", lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5))),
    ],
)
def test_the_formula(activation: str, f: Callable[[Tensor], Tensor]) -> None:
    """h = y + U·f(D·y + d) + u of Houlsby et al., each client with its own."""
    model = _Layer().requires_grad_(False)
    one = bottleneck_site("layer", 6, inner=3, activation=activation)
    draw = torch.Generator().manual_seed(0)
    shapes = {name: value.shape for name, value in one.init(draw).items()}
    assert shapes == {
        "layer.adapter_down.weight": (3, 6), "layer.adapter_down.bias": (3,),
        "layer.adapter_up.weight": (6, 3), "layer.adapter_up.bias": (6,),
    }  # fmt: skip
    values = {
        name: torch.randn(2, *shape, generator=draw, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    x = torch.randn(2 * 3, 4, 5, generator=draw, dtype=torch.float64)
    out = StackedModel(model, [one]).forward(values, {"x": x}, Frame(2))
    y = x @ model.layer.weight.T + model.layer.bias
    for row in range(6):
        k = row // 3
        d, u = values["layer.adapter_down.weight"][k], values["layer.adapter_up.weight"][k]
        low = f(y[row] @ d.T + values["layer.adapter_down.bias"][k])
        want = y[row] + low @ u.T + values["layer.adapter_up.bias"][k]
        torch.testing.assert_close(out[row], want, rtol=1e-12, atol=1e-12)


PLACES = {
    "bert": ("encoder.layer.{}.attention.output.dense", "encoder.layer.{}.output.dense"),
    "gpt2": ("transformer.h.{}.attn.c_proj", "transformer.h.{}.mlp.c_proj"),
    "llama": ("model.layers.{}.self_attn.o_proj", "model.layers.{}.mlp.down_proj"),
}


@pytest.mark.parametrize("placement", ["pfeiffer", "houlsby"])
@pytest.mark.parametrize("kind", PLACES)
def test_logits_are_those_of_a_model_with_plain_hooks(zoo: Zoo, kind: str, placement: str) -> None:
    """One bottleneck after each sublayer's last layer, before the residual is added."""
    adapter = {"method": "bottleneck", "placement": placement, "reduction_factor": 5}
    there = site(zoo, kind, adapter=adapter)
    parts = PLACES[kind] if placement == "houlsby" else PLACES[kind][1:]
    assert sorted(there.built.targets) == sorted(p.format(i) for i in (0, 1) for p in parts)
    values = stir(there.values, 4)
    width = 64 if kind == "llama" else 32
    prefix = there.base.prefix
    for name in there.built.targets:
        assert values[f"{prefix}{name}.adapter_down.weight"].shape == (width // 5, width)

    auto = AutoModel if kind == "bert" else AutoModelForCausalLM
    plain = auto.from_pretrained(zoo(kind), dtype=torch.float64).eval()

    def after(name: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, args: Any, out: Tensor) -> Tensor:
            down, up = (
                (values[f"{prefix}{name}.adapter_{part}.weight"],
                 values[f"{prefix}{name}.adapter_{part}.bias"])
                for part in ("down", "up")
            )  # fmt: skip
            return out + (out @ down[0].T + down[1]).relu() @ up[0].T + up[1]

        return hook

    for name in there.built.targets:
        plain.get_submodule(name).register_forward_hook(after(name))
    batch = there.bench.objective.collate(list(there.bench.examples("cy", "train")[:3]))
    stacked = {name: value.unsqueeze(0) for name, value in values.items()}
    found = there.built.model.forward(stacked, batch.inputs, Frame(1))
    output = plain(**batch.inputs)
    if kind == "bert":
        mask = batch.inputs["attention_mask"].unsqueeze(-1)
        pooled = (output.last_hidden_state * mask).sum(1) / mask.sum(1)
        want = pooled @ values["classifier.weight"].T + values["classifier.bias"]
    else:
        want = output.logits
    torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-10)


FAMILIES: dict[str, tuple[Callable[[], nn.Module], list[list[str]], list[str], list[str]]] = {
    "vit": (
        lambda: ViTModel(ViTConfig(num_hidden_layers=1, **IMAGE)),
        [["layers.0"]], ["layers.0.attention.o_proj"], ["layers.0.mlp.fc2"],
    ),
    "clip": (
        lambda: CLIPModel(CLIPConfig(text_config={"num_hidden_layers": 1, **SMALL},
                                     vision_config={"num_hidden_layers": 1, **IMAGE})),
        [["text_model.encoder.layers.0"], ["vision_model.encoder.layers.0"]],
        ["text_model.encoder.layers.0.self_attn.out_proj",
         "vision_model.encoder.layers.0.self_attn.out_proj"],
        ["text_model.encoder.layers.0.mlp.fc2", "vision_model.encoder.layers.0.mlp.fc2"],
    ),
    "albert": (
        lambda: AlbertModel(AlbertConfig(num_hidden_layers=2, **SMALL)),
        [["encoder.albert_layer_groups.0"]],
        ["encoder.albert_layer_groups.0.albert_layers.0.attention.dense"],
        ["encoder.albert_layer_groups.0.albert_layers.0.ffn_output"],
    ),
    "t5": (
        lambda: T5Model(T5Config(d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2)),
        [["encoder.block.0"], ["decoder.block.0"]],
        ["encoder.block.0.layer.0.SelfAttention.o", "decoder.block.0.layer.0.SelfAttention.o"],
        ["encoder.block.0.layer.1.DenseReluDense.wo",
         "decoder.block.0.layer.2.DenseReluDense.wo"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_where_blocks_and_their_parts_end(family: str) -> None:
    make, blocks, attention, feedforward = FAMILIES[family]
    model = make()
    assert block_lists(model) == blocks
    assert attention_outputs(model) == attention
    assert feedforward_outputs(model) == feedforward


def test_blocks_without_a_plain_feed_forward_part_are_refused() -> None:
    """A mixture of experts keeps its experts in one tensor."""
    model = Qwen3MoeModel(Qwen3MoeConfig(
        num_hidden_layers=1, num_key_value_heads=2, moe_intermediate_size=8, num_experts=2,
        num_experts_per_tok=1, vocab_size=20, **SMALL,
    ))  # fmt: skip
    with pytest.raises(ModelError) as caught:
        feedforward_outputs(model)
    assert str(caught.value) == (
        "layers.0 is not attention and then linear layers of the same width, as far as its modules "
        "tell; name the modules in adapter.target_modules"
    )


def test_first_values_are_those_of_a_linear_layer_and_zeros(zoo: Zoo) -> None:
    there = site(zoo, adapter={"method": "bottleneck", "reduction_factor": 2})
    for name, value in there.values.items():
        if name.endswith("adapter_down.weight"):
            bound = 1 / value.shape[1] ** 0.5
            assert 0.9 * bound < float(value.abs().max()) <= bound
            assert float(value.std()) == pytest.approx(bound / 3**0.5, rel=0.1)
        elif ".adapter_" in name:
            assert not value.any()


def test_a_bottleneck_is_never_narrower_than_one_feature(zoo: Zoo) -> None:
    there = site(zoo, adapter={"method": "bottleneck", "reduction_factor": 1000})
    name = "backbone.encoder.layer.0.output.dense.adapter_down.weight"
    assert there.values[name].shape == (1, 32)
