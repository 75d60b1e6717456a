"""Stacked LoRA against peft: logits, gradients, first values, ranks, dropout."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear as PeftLinear
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM

from atoll import rng
from atoll.adapters.lora import LoraScale, lora_site
from atoll.adapters.ranks import pad_ranks
from atoll.adapters.site import Frame
from atoll.adapters.stacked import StackedModel
from atoll.errors import ModelError
from atoll.tree import Tree
from tests.support.federation import distance, site, stir
from tests.support.models import Zoo
from tests.support.plain import load_into

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

K, ROWS, LENGTH = 3, 2, 9
CASES: dict[str, tuple[str, Any]] = {
    "bert": ("bert", r"encoder\..*\.(query|key|value|dense)"),
    "gpt2": ("gpt2", ("c_attn", "c_proj", "c_fc")),
    "llama": ("llama", "all-linear"),
}  # fmt: skip


def _peft(zoo: Zoo, kind: str, targets: Any, dtype: str, **settings: Any) -> nn.Module:
    auto = AutoModel if kind == "bert" else AutoModelForCausalLM
    model = auto.from_pretrained(zoo(kind), dtype=getattr(torch, dtype)).eval()
    names = targets if isinstance(targets, str) else list(targets)
    config = LoraConfig(target_modules=names, fan_in_fan_out=kind == "gpt2", **settings)
    return get_peft_model(model, config).eval()


def _inputs(kind: str) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 30, (K * ROWS, LENGTH), generator=draw)
    mask = torch.ones_like(ids)
    for row in range(K * ROWS):
        mask[row, LENGTH - row :] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("kind", CASES)
def test_logits_and_gradients_are_pefts(zoo: Zoo, kind: str, rslora: bool, dtype: str) -> None:
    name, targets = CASES[kind]
    tolerance = 1e-10 if dtype == "float64" else 1e-5
    adapter = {"r": 4, "lora_alpha": 24.0, "use_rslora": rslora, "target_modules": targets}
    there = site(zoo, name, adapter=adapter, dtype=dtype)
    trees = [stir(there.values, 20 + k) for k in range(K)]
    stacked = {n: torch.stack([t[n] for t in trees]).requires_grad_() for n in there.values}
    inputs = _inputs(kind)
    logits = there.built.model.forward(stacked, inputs, Frame(K))
    pull = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).to(logits)
    (logits * pull).sum().backward()

    peft = _peft(zoo, name, targets, dtype, r=4, lora_alpha=24, use_rslora=rslora)
    prefix = "backbone." if kind == "bert" else ""
    for k, tree in enumerate(trees):
        names = load_into(peft, tree, prefix=prefix)
        assert set(names) == {n for n in tree if not n.startswith("classifier.")}
        own = slice(k * ROWS, (k + 1) * ROWS)
        output = peft(**{n: value[own] for n, value in inputs.items()})
        if kind == "bert":
            mask = inputs["attention_mask"][own].unsqueeze(-1)
            pooled = (output.last_hidden_state * mask).sum(1) / mask.sum(1)
            expected = pooled @ tree["classifier.weight"].T + tree["classifier.bias"]
        else:
            expected = output.logits
        torch.testing.assert_close(logits[own], expected, rtol=tolerance, atol=tolerance)
        peft.zero_grad()
        (expected * pull[own]).sum().backward()
        found = {n: stacked[n].grad[k] for n in names}
        parameters = [p for p in peft.parameters() if p.requires_grad]
        theirs = {n: p.grad for n, p in zip(names, parameters, strict=True)}
        assert distance(found, theirs) < tolerance * 10


def test_bert_case_adapts_every_linear_layer_that_trains(zoo: Zoo) -> None:
    by_regex = site(zoo, adapter={"target_modules": CASES["bert"][1]}).built.targets
    assert by_regex == site(zoo, adapter={"target_modules": "all-linear"}).built.targets


def test_layers_that_fused_kernels_read_past_are_left_alone(zoo: Zoo) -> None:
    """PEFT refuses LoRA on them, so that a trained one could not be loaded."""
    there = site(zoo, "mamba", adapter={"target_modules": "all-linear", "r": 2})
    leaves = {name.rpartition(".")[2] for name in there.built.targets}
    assert leaves == {"in_proj", "x_proj"}
    assert there.built.dropped == ("backbone.layers.0.mixer.dt_proj",)
    _peft(zoo, "mamba", there.built.targets, "float64", r=2)
    with pytest.raises(ValueError, match="incompatible"):
        _peft(zoo, "mamba", ("in_proj", "out_proj"), "float64", r=2)
    with pytest.raises(ModelError) as caught:
        site(zoo, "mamba", adapter={"target_modules": ("in_proj", "out_proj")})
    assert str(caught.value) == (
        "adapter.target_modules names backbone.layers.0.mixer.out_proj, whose weights the fused "
        "kernels of mamba models read past the layer, so that PEFT puts no LoRA there; leave it out"
    )
    there = there.with_train(optimizer="sgd")
    alone, stacked = (there.train(group_size=size)[0] for size in (1, 5))
    # Its scan is in single precision, whatever the model's.
    assert all(distance(stacked[name].end, one.end) < 1e-6 for name, one in alone.items())


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_names_and_shapes_are_pefts(zoo: Zoo, kind: str) -> None:
    there = site(zoo, kind, adapter={"r": 3, "target_modules": CASES[kind][1]})
    peft = _peft(zoo, kind, CASES[kind][1], "float64", r=3)
    theirs = {
        name.removeprefix("base_model.model.").replace(".default", ""): tuple(value.shape)
        for name, value in peft.state_dict().items()
        if "lora_" in name
    }
    assert {name: tuple(value.shape) for name, value in there.values.items()} == theirs


def test_first_values_are_drawn_as_pefts() -> None:
    """A uniform within the same bounds, and with the same spread; B is zero."""
    d_in, d_out, r = 48, 20, 64
    ours = lora_site("m", (d_in, d_out), r=r, scale=LoraScale(1.0)).init(rng.generator(0, "test"))
    a, b = ours["m.lora_A.weight"], ours["m.lora_B.weight"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = PeftLinear(nn.Linear(d_in, d_out), "default", LoraConfig(r=r), r=r)
    their_a = theirs.lora_A["default"].weight.detach()
    assert a.shape == their_a.shape
    bound = 1 / math.sqrt(d_in)
    for drawn in (a, their_a):
        assert float(drawn.abs().max()) <= bound
        assert float(drawn.abs().max()) > 0.99 * bound
        assert float(drawn.mean()) == pytest.approx(0, abs=0.02 * bound * 3)
        assert float(drawn.std()) == pytest.approx(bound / math.sqrt(3), rel=0.03)
    assert not b.any()
    assert b.shape == theirs.lora_B["default"].weight.shape


def test_first_values_depend_on_seed_and_module_only(zoo: Zoo) -> None:
    there = site(zoo, "llama", adapter={"target_modules": ("q_proj", "v_proj")})
    other = site(zoo, "llama", adapter={"target_modules": ("q_proj",)})
    first, again = there.built.model.init(0), other.built.model.init(0)
    assert all(torch.equal(first[name], value) for name, value in again.items())
    a = [value for name, value in first.items() if name.endswith("q_proj.lora_A.weight")]
    assert not torch.equal(a[0], a[1])
    seeded = there.built.model.init(1)
    assert not torch.equal(seeded[next(iter(first))], first[next(iter(first))])


def test_an_untrained_adapter_changes_nothing(zoo: Zoo) -> None:
    for kind in ("gpt2", "llama"):
        there = site(zoo, kind)
        values = {name: value.unsqueeze(0).expand(K, *value.shape)
                  for name, value in there.values.items()}  # fmt: skip
        plain = AutoModelForCausalLM.from_pretrained(zoo(kind), dtype=torch.float64).eval()
        found = there.built.model.forward(values, _inputs(kind), Frame(K))
        assert torch.equal(found, plain(**_inputs(kind)).logits)
        # Between passes the hooks sleep.
        assert torch.equal(there.base.model(**_inputs(kind)).logits, found)
        there.built.model.close()
        assert not any(m._forward_hooks for m in there.base.model.modules())


def test_scale() -> None:
    assert LoraScale(16, use_rslora=False).at(4) == 4.0
    assert LoraScale(16, use_rslora=True).at(4) == 8.0
    assert LoraScale(16, use_rslora=False).at(0) == 16.0


def test_the_scale_is_that_of_the_rank_that_came() -> None:
    """Values of rank 2 in an adapter that was made with rank 8: α/2, for one client and for all."""
    model = _Plain(5, 7).requires_grad_(False)
    stacked = StackedModel(model, [lora_site("layer", (5, 7), r=8, scale=LoraScale(6.0))])
    draw = torch.Generator().manual_seed(0)
    a, b, x = (torch.randn(shape, generator=draw, dtype=torch.float64)
               for shape in ((2, 2, 5), (2, 7, 2), (2, 5)))  # fmt: skip
    values = {"layer.lora_A.weight": a, "layer.lora_B.weight": b}
    out = stacked.forward(values, {"x": x}, Frame(2))
    for k in range(2):
        torch.testing.assert_close(out[k], model.layer(x[k]) + 3.0 * b[k] @ a[k] @ x[k])


class _Plain(nn.Module):
    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.layer = nn.Linear(d_in, d_out, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@pytest.mark.parametrize("rslora", [False, True])
def test_different_ranks_in_one_stack(rslora: bool) -> None:
    """Ranks 1, 3 and 8 padded to 8, trained by plain gradient steps beside each one alone."""
    ranks, alpha, width = (1, 3, 8), 6.0, (5, 7)
    draw = torch.Generator().manual_seed(4)
    x = torch.randn(3 * 4, 2, 5, generator=draw, dtype=torch.float64)
    y = torch.randn(3 * 4, 2, 7, generator=draw, dtype=torch.float64)
    model = _Plain(*width).requires_grad_(False)
    weight, bias = model.layer.weight, model.layer.bias
    scales = [alpha / (math.sqrt(r) if rslora else r) for r in ranks]
    trees: list[Tree] = [
        {"layer.lora_A.weight": torch.randn(r, 5, generator=draw, dtype=torch.float64),
         "layer.lora_B.weight": torch.randn(7, r, generator=draw, dtype=torch.float64)}
        for r in ranks
    ]  # fmt: skip
    adapted = lora_site("layer", width, r=5, scale=LoraScale(alpha, rslora))
    stacked_model = StackedModel(model, [adapted])
    padded, uneven = pad_ranks(trees)
    assert uneven == {"layer.lora_A.weight": ranks}
    stack = {n: torch.stack([tree[n] for tree in padded]).requires_grad_() for n in trees[0]}
    alone = [{n: v.clone().requires_grad_() for n, v in tree.items()} for tree in trees]
    for _ in range(5):
        frame = Frame(3, ranks=uneven)
        out = stacked_model.forward(stack, {"x": x}, frame)
        loss = ((out - y) ** 2).view(3, -1).mean(1).sum()
        for value, gradient in zip(
            stack.values(), torch.autograd.grad(loss, list(stack.values())), strict=True
        ):
            value.data -= 0.01 * gradient
        for k, tree in enumerate(alone):
            a, b = tree["layer.lora_A.weight"], tree["layer.lora_B.weight"]
            own, want = x[4 * k : 4 * k + 4], y[4 * k : 4 * k + 4]
            out = own @ weight.T + bias + scales[k] * (own @ a.T @ b.T)
            loss = ((out - want) ** 2).mean()
            for value, gradient in zip((a, b), torch.autograd.grad(loss, (a, b)), strict=True):
                value.data -= 0.01 * gradient
    for k, (r, tree) in enumerate(zip(ranks, alone, strict=True)):
        a, b = stack["layer.lora_A.weight"][k], stack["layer.lora_B.weight"][k]
        torch.testing.assert_close(a[:r], tree["layer.lora_A.weight"], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(b[:, :r], tree["layer.lora_B.weight"], rtol=1e-10, atol=1e-12)
        assert not a[r:].any()
        assert not b[:, r:].any()
        assert not torch.equal(tree["layer.lora_A.weight"], trees[k]["layer.lora_A.weight"])


def test_equal_ranks_are_left_alone() -> None:
    trees = [{"m.lora_A.weight": torch.ones(4, 2), "m.lora_B.weight": torch.ones(3, 4)}] * 2
    padded, uneven = pad_ranks(trees)
    assert uneven == {}
    assert all(padded[k][name] is value for k in range(2) for name, value in trees[k].items())


RATE = 0.3


def _dropped(extents: tuple[tuple[int, int], ...], seeds: tuple[int, ...]) -> Tensor:
    """What LoRA sees of ones: base 0, A and B the identity, so that dropout alone is left."""
    width, clients = 16, len(extents)
    model = _Plain(width, width).requires_grad_(False)
    model.layer.weight.data.zero_()
    model.layer.bias.data.zero_()
    drops = lora_site("layer", (width, width), r=width, scale=LoraScale(width), dropout=RATE)
    eye = torch.eye(width, dtype=torch.float64).expand(clients, width, width)
    rows, length = max(r for r, _ in extents), max(t for _, t in extents)
    x = torch.ones(clients * rows, length, width, dtype=torch.float64)
    frame = Frame(clients, extents, tuple(torch.Generator().manual_seed(s) for s in seeds))
    values = {"layer.lora_A.weight": eye, "layer.lora_B.weight": eye}
    out = StackedModel(model, [drops], drops=True).forward(values, {"x": x}, frame)
    return out.view(clients, rows, length, width)


def test_dropout_keeps_the_mean_and_drops_the_share() -> None:
    out = _dropped(((20, 40), (20, 40)), (1, 2))
    kept = out != 0
    torch.testing.assert_close(out[kept], torch.full_like(out[kept], 1 / (1 - RATE)))
    assert float(kept.double().mean()) == pytest.approx(1 - RATE, abs=0.01)
    assert float(out.mean()) == pytest.approx(1.0, abs=0.015)
    assert float((kept[0] == kept[1]).double().mean()) == pytest.approx(
        RATE**2 + (1 - RATE) ** 2, abs=0.02
    ), "clients share their masks"


def test_dropout_of_a_client_is_the_same_in_a_stack_and_alone() -> None:
    extents = ((2, 5), (4, 3), (1, 7))
    stacked = _dropped(extents, (1, 2, 3))
    for k, (rows, length) in enumerate(extents):
        alone = _dropped((extents[k],), (k + 1,))
        assert torch.equal(stacked[k, :rows, :length], alone[0])
