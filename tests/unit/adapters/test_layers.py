"""The last blocks, trained whole: stacked where their modules allow it, else one by one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.models.convnext.modeling_convnext import ConvNextLayerNorm
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.pytorch_utils import Conv1D

from atoll.adapters.build import build_adapter
from atoll.adapters.dense import bias_site, linear_site, norm_site
from atoll.adapters.site import Frame
from atoll.adapters.stacked import StackedModel
from atoll.config.adapter import Adapter
from atoll.errors import ModelError
from atoll.models.base import Base
from atoll.models.locate import Source
from atoll.models.objective import Batch
from tests.support.federation import distance, moved, site, stir
from tests.support.models import Zoo
from tests.support.plain import causal_loss

K = 2


@pytest.mark.parametrize(
    ("kind", "last"), [("gpt2", "transformer.h.1."), ("llama", "model.layers.1.")]
)
def test_what_trains_is_the_last_block_whole(zoo: Zoo, kind: str, last: str) -> None:
    there = site(zoo, kind, adapter={"method": "layers", "num_layers": 1})
    parameters = dict(there.base.model.named_parameters())
    assert there.values.keys() == {name for name in parameters if name.startswith(last)}
    assert all(torch.equal(value, parameters[name]) for name, value in there.values.items())
    assert there.built.alone is None


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_logits_and_gradients_are_those_of_the_model_with_these_weights(
    zoo: Zoo, kind: str
) -> None:
    there = site(zoo, kind, adapter={"method": "layers", "num_layers": 1})
    trees = [stir(there.values, 20 + k) for k in range(K)]
    stacked = {n: torch.stack([t[n] for t in trees]).requires_grad_() for n in there.values}
    examples = list(there.bench.examples("cy", "train")[: K * 2])
    batch = there.bench.objective.collate(examples)
    logits = there.built.model.forward(stacked, batch.inputs, Frame(K))
    chances = logits.log_softmax(-1)
    for k, tree in enumerate(trees):
        plain = AutoModelForCausalLM.from_pretrained(zoo(kind), dtype=torch.float64).eval()
        plain.load_state_dict(tree, strict=False)
        own = examples[2 * k : 2 * k + 2]
        want = sum((causal_loss(plain)(example) for example in own), torch.zeros(()))
        want.backward()
        found = torch.zeros((), dtype=torch.float64)
        for row, example in enumerate(own, start=2 * k):
            for place, token in enumerate(example.target.tolist()):
                if place and token >= 0:
                    found = found - chances[row, place - 1, token]
        torch.testing.assert_close(found, want, rtol=1e-9, atol=1e-9)
        theirs = dict(plain.named_parameters())
        gradients = torch.autograd.grad(found, list(stacked.values()), retain_graph=True)
        ours = {n: g[k] for n, g in zip(stacked, gradients, strict=True)}
        reached = {n: theirs[n].grad for n in ours}
        assert distance(ours, reached) < 1e-8  # type: ignore[arg-type]


def test_more_blocks_than_there_are(zoo: Zoo) -> None:
    with pytest.raises(ModelError) as caught:
        site(zoo, "llama", adapter={"method": "layers", "num_layers": 3})
    assert str(caught.value) == (
        "adapter.num_layers is 3, but the model has 2 blocks (model.layers.0 to model.layers.1); "
        "use at most 2, or adapter.method: full"
    )


class _Scaled(nn.Module):
    """A block with a parameter of its own, and attention that reads a layer's weight directly."""

    def __init__(self, *, scale: bool) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.outer = nn.Linear(8, 8)
        if scale:
            self.gamma = nn.Parameter(torch.full((8,), 0.5))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        hidden = nn.functional.linear(x, self.inner.weight, self.inner.bias).tanh()
        return x + self.outer(hidden) * (self.gamma if self.scale else 1.0)


class _Blocks(nn.Module):
    def __init__(self, *, scale: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 8)
        self.blocks = nn.ModuleList(_Scaled(scale=scale) for _ in range(2))
        self.classifier = nn.Linear(8, 3)

    def forward(self, input_ids: Tensor) -> Tensor:
        hidden = self.embed(input_ids)
        for block in self.blocks:
            hidden = block(hidden)
        return self.classifier(hidden.mean(1))


@pytest.mark.parametrize("scale", [True, False])
def test_blocks_that_cannot_be_stacked_train_one_client_at_a_time(scale: bool) -> None:
    """Because a parameter is in no layer, or because a layer's weight is read past its module."""
    torch.manual_seed(0)
    model = _Blocks(scale=scale).requires_grad_(False).eval()
    base = Base(model, model, "", None, Source("x", "x"), "AutoModel", "classifier")
    ids = torch.randint(1, 40, (2, 5), generator=torch.Generator().manual_seed(0))
    probe = Batch({"input_ids": ids}, torch.zeros(2, 1, dtype=torch.long))
    built = build_adapter(base, Adapter(method="layers", num_layers=1), probe)
    odd = "blocks.1" if scale else "blocks.1.inner"
    assert built.alone == f"{odd} cannot hold values of several clients"
    assert built.dropped == ()
    values = built.model.init(0)
    trained = {name for name in values if name.startswith("blocks.")}
    assert trained == {n for n, _ in model.named_parameters() if n.startswith("blocks.1.")}
    changed = stir(values, 1)
    found = built.model.forward({n: v.unsqueeze(0) for n, v in changed.items()},
                                {"input_ids": ids}, Frame(1))  # fmt: skip
    copy = _Blocks(scale=scale)
    copy.load_state_dict({**model.state_dict(), **changed})
    torch.testing.assert_close(found, copy(ids))
    assert not torch.allclose(found, model(ids))


class _Alone(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


def _norms() -> dict[str, nn.Module]:
    made = {
        "layer-norm": nn.LayerNorm(6),
        "without-bias": nn.LayerNorm(6, bias=False),
        "llama": LlamaRMSNorm(6),
        "gemma": GemmaRMSNorm(6),
    }
    for module in made.values():
        for value in module.parameters():
            nn.init.normal_(value, std=0.3)
    return made


@pytest.mark.parametrize("name", _norms())
def test_a_stacked_norm_is_the_norm_with_each_clients_scale(name: str) -> None:
    module = _norms()[name].requires_grad_(False)
    one = norm_site("module", module)
    assert one is not None
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(K * 3, 4, 6, generator=draw)
    first = one.init(draw)
    values = {n: torch.randn(K, 6, generator=draw) for n in first}
    assert all(torch.equal(v, module.get_parameter(n.split(".")[1])) for n, v in first.items())
    out = StackedModel(_Alone(module), [one]).forward(values, {"x": x}, Frame(K))
    for k in range(K):
        other = type(module)(6, bias=False) if name == "without-bias" else type(module)(6)
        other.load_state_dict({n.split(".")[1]: value[k] for n, value in values.items()})
        want = other(x[3 * k : 3 * k + 3])
        torch.testing.assert_close(out[3 * k : 3 * k + 3], want, rtol=1e-5, atol=1e-6)


class _Squared(nn.Module):
    """Not linear in its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight**2


@pytest.mark.parametrize("module", [_Squared(), nn.Linear(6, 6), nn.Embedding(6, 6), nn.GELU()],
                         ids=lambda module: type(module).__name__)  # fmt: skip
def test_what_is_no_norm_is_not_taken_for_one(module: nn.Module) -> None:
    assert norm_site("module", module) is None


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Linear(6, 4), (3, 6)), (Conv1D(4, 6), (3, 6)), (nn.LayerNorm(4), (3, 4)),
        # As many places in a line as channels: the wrong axis would be no error.
        (nn.Conv2d(3, 4, 2, stride=2), (3, 8, 8)), (nn.Conv1d(3, 4, 1), (3, 4)),
        (nn.GroupNorm(2, 4), (4, 4, 4)),
        (ConvNextLayerNorm(4, data_format="channels_first"), (4, 4, 4)),
        (ConvNextLayerNorm(4, data_format="channels_last"), (4, 4, 4)),
    ],
    ids=["linear", "gpt2", "norm", "image", "sequence", "groups", "convnext", "convnext-last"],
)  # fmt: skip
def test_a_stacked_bias_is_the_modules_with_each_clients_own(
    module: nn.Module, shape: tuple[int, ...]
) -> None:
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(K * 3, *shape, generator=draw)
    one = bias_site("module", module.requires_grad_(False))
    assert torch.equal(one.init(draw)["module.bias"], module.get_parameter("bias"))
    values = torch.randn(K, 4, generator=draw)
    out = StackedModel(_Alone(module), [one]).forward({"module.bias": values}, {"x": x}, Frame(K))
    for k in range(K):
        other = copy.deepcopy(module)
        other.get_parameter("bias").copy_(values[k])
        rows = slice(3 * k, 3 * k + 3)
        torch.testing.assert_close(out[rows], other(x[rows]), rtol=1e-5, atol=1e-6)


def test_gpt2s_transposed_layer() -> None:
    module = Conv1D(5, 6).requires_grad_(False)
    one = linear_site("module", module, last=False)
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(K * 3, 4, 6, generator=draw)
    values = {n: torch.randn(K, *v.shape, generator=draw) for n, v in one.init(draw).items()}
    assert values["module.weight"].shape == (K, 6, 5)
    out = StackedModel(_Alone(module), [one]).forward(values, {"x": x}, Frame(K))
    for k in range(K):
        want = x[3 * k : 3 * k + 3] @ values["module.weight"][k] + values["module.bias"][k]
        torch.testing.assert_close(out[3 * k : 3 * k + 3], want)


def test_a_pooler_outside_the_blocks_stays(zoo: Zoo) -> None:
    there = site(zoo, adapter={"method": "layers", "num_layers": 1}, train={"max_steps": 1})
    trained, _ = there.train(group_size=5)
    names: set[Any] = {name.partition("encoder.")[2].rsplit(".", 1)[0] or name
                       for name in moved(trained["cy"])}  # fmt: skip
    assert all(name.startswith(("layer.1.", "classifier")) for name in names)


class _Rounded(nn.Parameter):
    """As quantisers keep weights: a parameter of a class of their own."""


@pytest.mark.parametrize("method", ["layers", "full"])
def test_quantised_weights_do_not_train(zoo: Zoo, method: str) -> None:
    base = zoo.base("llama")
    layer = base.model.get_submodule("model.layers.1.mlp.up_proj")
    layer.weight = _Rounded(layer.get_parameter("weight").detach(), requires_grad=False)
    ids = torch.randint(1, 40, (2, 5), generator=torch.Generator().manual_seed(0))
    probe = Batch({"input_ids": ids}, ids)
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj\.weight is quantised"):
        build_adapter(base, Adapter(method=method), probe)
