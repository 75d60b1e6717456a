"""Local training against plain loops of transformers, peft and torch.optim, row by row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from atoll.core import Context
from atoll.local.batches import plan_steps
from atoll.local.train import LocalRule
from atoll.tree import Tree
from tests.support.federation import Site, distance, labelled_rows, site, stir
from tests.support.models import Zoo
from tests.support.plain import causal_loss, classifier_loss, load_into, plain_training

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

ADAMW: dict[str, Any] = {
    "optimizer": "adamw",
    "learning_rate": 2e-3,
    "weight_decay": 0.1,
    "gradient_accumulation_steps": 2,
    "lr_scheduler_type": "linear",
    "warmup_steps": 3,
    "max_grad_norm": 0.3,
    "num_train_epochs": 2,
}
SGD: dict[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "momentum": 0.9,
    "max_grad_norm": None,
    "num_train_epochs": 2,
}


def _steps(there: Site, client: str, round: int = 1) -> list[list[int]]:
    """The rows of each step; `test_local_batches` proves that they are right."""
    settings, examples = there.bench.settings, there.bench.examples(client, "train")
    context = Context(5, "run", round, round, there.clients, len(there.clients), client)
    size = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    lengths = [len(example) for example in examples]
    return plan_steps(lengths, context, batch_size=size, epochs=settings.num_train_epochs)


def _head(values: Tree, name: str = "classifier") -> nn.Linear:
    weight, bias = values[f"{name}.weight"], values[f"{name}.bias"]
    head = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    head.weight.data, head.bias.data = weight.clone(), bias.clone()
    return head


def _check(there: Site, parameters: dict[str, nn.Parameter], loss: Any, **asked: Any) -> None:
    """One client of a trained stack against the plain loop over `parameters`."""
    client, round = "cy", asked.pop("round", 1)
    rule = asked.pop("rule", None)
    trained, failures = there.train(group_size=5, round=round, rule=rule)
    assert not failures
    found = trained[client]
    assert found.end.keys() == parameters.keys()
    losses = plain_training(
        list(parameters.values()), loss, there.bench.objective.count,
        there.bench.examples(client, "train"), _steps(there, client, round),
        there.bench.settings, round=round, num_rounds=there.bench.num_rounds, **asked,
    )  # fmt: skip
    assert found.steps == len(losses)
    assert found.loss == pytest.approx(sum(losses) / len(losses), rel=1e-9)
    walked = distance(found.start, found.end)
    assert walked > 1e-3
    ends = {name: parameter.detach() for name, parameter in parameters.items()}
    assert distance(found.end, ends) < 1e-9


@pytest.mark.parametrize("train", [ADAMW, SGD, {**ADAMW, "lr_scheduler_type": "cosine"}])
def test_lora_and_head_on_bert(zoo: Zoo, train: dict[str, Any]) -> None:
    adapter = {"r": 4, "lora_alpha": 8.0, "target_modules": ("query", "dense"), "use_rslora": True}
    adapter["target_modules"] = r".*(query|intermediate\.dense)"
    there = site(zoo, adapter=adapter, train=train, num_rounds=2)
    there = replace(there, values=stir(there.values, 1))
    backbone = AutoModel.from_pretrained(zoo("bert"), dtype=torch.float64).eval()
    config = LoraConfig(r=4, lora_alpha=8, target_modules=adapter["target_modules"],
                        use_rslora=True)  # fmt: skip
    model = get_peft_model(backbone, config).eval()
    names = load_into(model, there.values, prefix="backbone.")
    head = _head(there.values)
    parameters = dict(zip(names, (p for p in model.parameters() if p.requires_grad), strict=True))
    parameters |= {"classifier.weight": head.weight, "classifier.bias": head.bias}
    _check(there, parameters, classifier_loss(model, head), round=2)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_lora_on_language_models(zoo: Zoo, kind: str) -> None:
    names = {"gpt2": ("c_attn", "mlp.c_proj"), "llama": ("q_proj", "down_proj")}[kind]
    adapter = {"r": 2, "lora_alpha": 16.0, "target_modules": names}
    there = site(zoo, kind, adapter=adapter, train=ADAMW)
    there = replace(there, values=stir(there.values, 1))
    model = AutoModelForCausalLM.from_pretrained(zoo(kind), dtype=torch.float64)
    config = LoraConfig(r=2, lora_alpha=16, target_modules=list(names),
                        fan_in_fan_out=kind == "gpt2")  # fmt: skip
    model = get_peft_model(model, config).eval()
    ours = load_into(model, there.values)
    parameters = dict(zip(ours, (p for p in model.parameters() if p.requires_grad), strict=True))
    _check(there, parameters, causal_loss(model))


def test_proximal_term_and_control_variate(zoo: Zoo) -> None:
    there = site(zoo, adapter={"method": "none"}, train={**SGD, "max_grad_norm": 0.3})
    there = replace(there, values=stir(there.values, 1))
    offset = stir(there.values, 9)
    backbone = AutoModel.from_pretrained(zoo("bert"), dtype=torch.float64).eval()
    backbone.requires_grad_(False)
    head = _head(there.values)
    _check(
        there,
        {"classifier.weight": head.weight, "classifier.bias": head.bias},
        classifier_loss(backbone, head),
        rule=LocalRule(proximal=0.7, offset=lambda request: offset),
        proximal=0.7,
        offset=list(offset.values()),
    )


def test_bitfit_trains_the_models_own_biases(zoo: Zoo) -> None:
    there = site(zoo, "gpt2", adapter={"method": "bitfit"}, train={**SGD, "max_grad_norm": 1.0})
    model = AutoModelForCausalLM.from_pretrained(zoo("gpt2"), dtype=torch.float64).eval()
    model.requires_grad_(False)
    biases = {n: p.requires_grad_() for n, p in model.named_parameters() if n.endswith("bias")}
    assert biases.keys() == there.values.keys()
    _check(there, {name: biases[name] for name in there.values}, causal_loss(model))


def test_bitfit_of_an_encoder_with_its_head(zoo: Zoo) -> None:
    there = site(zoo, adapter={"method": "bitfit"}, train={**SGD, "max_grad_norm": 1.0})
    there = replace(there, values=there.values | {
        n: v for n, v in stir(there.values, 1).items() if n.startswith("classifier.")
    })  # fmt: skip
    backbone = AutoModel.from_pretrained(zoo("bert"), dtype=torch.float64).eval()
    head = _head(there.values)
    owned = {f"backbone.{n}": p for n, p in backbone.named_parameters()}
    owned |= {"classifier.weight": head.weight, "classifier.bias": head.bias}
    left_out = {n for n in owned if n.endswith("bias")} - there.values.keys()
    assert left_out == {"backbone.pooler.dense.bias"}
    _check(there, {name: owned[name] for name in there.values}, classifier_loss(backbone, head))


def _whole(zoo: Zoo, kind: str, **changes: Any) -> Site:
    train = {**ADAMW, "learning_rate": 1e-3, "warmup_steps": 0, **changes}
    return site(zoo, kind, adapter={"method": "full"}, train=train,
                rows=None if kind != "bert" else labelled_rows({"ada": 3, "cy": 9}))  # fmt: skip


def _no_dropout(there: Site) -> None:
    for module in there.base.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_whole_model(zoo: Zoo, kind: str) -> None:
    there = _whole(zoo, kind, optimizer="sgd", learning_rate=0.02)
    assert there.built.alone is not None
    _no_dropout(there)
    if kind == "bert":
        there = replace(there, values=there.values | {
            n: v for n, v in stir(there.values, 1).items() if n.startswith("classifier.")
        })  # fmt: skip
        model: nn.Module = AutoModel.from_pretrained(zoo("bert"), dtype=torch.float64).eval()
        head = _head(there.values)
        parameters = {f"backbone.{n}": p for n, p in model.named_parameters()}
        parameters |= {"classifier.weight": head.weight, "classifier.bias": head.bias}
        loss = classifier_loss(model, head)
    else:
        model = AutoModelForCausalLM.from_pretrained(zoo("gpt2"), dtype=torch.float64).eval()
        parameters = dict(model.named_parameters())
        loss = causal_loss(model)
    client = "cy"
    trained, failures = there.train(group_size=1)
    assert not failures
    # A pooler that mean pooling does not read has no gradient: it is no part of what trains.
    idle = {n for n in parameters if "pooler" in n}
    assert trained[client].end.keys() == parameters.keys() - idle
    assert set(there.built.dropped) == ({"pooler.dense"} if idle else set())
    chosen = {n: parameters[n] for n in trained[client].end}
    plain_training(
        list(chosen.values()), loss, there.bench.objective.count,
        there.bench.examples(client, "train"), _steps(there, client), there.bench.settings,
        num_rounds=there.bench.num_rounds,
    )  # fmt: skip
    ends = {name: parameter.detach() for name, parameter in chosen.items()}
    assert distance(trained[client].end, ends) < 1e-9
    assert distance(trained[client].start, trained[client].end) > 1e-4


def test_dropout_of_a_whole_model_belongs_to_client_and_step(zoo: Zoo) -> None:
    row = {"text": "reef tide coral lagoon island", "label": "sea"}
    there = site(zoo, adapter={"method": "full"}, train={"optimizer": "sgd"},
                 rows={"ada": [row] * 4, "bob": [row] * 4})  # fmt: skip
    before = torch.get_rng_state()
    first, _ = there.train(group_size=1)
    assert torch.equal(torch.get_rng_state(), before), "the global generator was moved"
    torch.manual_seed(99)
    again, _ = there.train(group_size=1)
    lone, _ = there.train(group_size=1, clients=["bob"])
    torch.set_rng_state(before)
    for client, one in first.items():
        assert all(torch.equal(again[client].end[n], v) for n, v in one.end.items())
    assert all(torch.equal(lone["bob"].end[n], v) for n, v in first["bob"].end.items())
    assert distance(first["ada"].end, first["bob"].end) > 1e-6
    other, _ = there.train(group_size=1, seed=6)
    assert distance(first["ada"].end, other["ada"].end) > 1e-6
    assert not there.base.model.training
    _no_dropout(there)
    dry, _ = there.train(group_size=1)
    assert distance(first["ada"].end, dry["ada"].end) > 1e-6
    assert dry["ada"].loss == pytest.approx(dry["bob"].loss, rel=1e-12)


def test_the_heads_own_learning_rate(zoo: Zoo) -> None:
    """Two parameter groups of torch.optim."""
    there = site(zoo, adapter={"target_modules": ("query",), "r": 2},
                 train={"optimizer": "sgd", "learning_rate": 0.01, "head_learning_rate": 0.3,
                        "max_grad_norm": None})  # fmt: skip
    there = replace(there, values=stir(there.values, 1))
    trained, _ = there.train(group_size=5)
    one = trained["eve"]
    assert one.steps == 1
    for name, gradient in one.mean_gradient.items():
        rate = 0.3 if name.startswith("classifier.") else 0.01
        torch.testing.assert_close(one.end[name], one.start[name] - rate * gradient)


def test_an_auto_classification_model_trains_its_own_head(zoo: Zoo) -> None:
    there = site(zoo, adapter={"method": "none"}, pooling="model", train=SGD)
    assert there.base.head == "classifier"
    model = AutoModelForSequenceClassification.from_pretrained(
        zoo("bert"), dtype=torch.float64, num_labels=4
    ).eval()
    model.load_state_dict(there.base.model.state_dict())
    model.requires_grad_(False)
    head = _head(there.values)
    model.classifier = head
    # The checkpoint has no pooler: a new layer trains whole, as the head does.
    pooler = model.bert.pooler.dense.requires_grad_(True)
    owned = {f"bert.pooler.dense.{name}": value for name, value in pooler.named_parameters()}
    with torch.no_grad():
        for name, value in owned.items():
            value.copy_(there.values[name])
    owned |= {"classifier.weight": head.weight, "classifier.bias": head.bias}

    def loss(example: Any) -> torch.Tensor:
        ids = torch.tensor(example.ids.tolist()).unsqueeze(0)
        return model(input_ids=ids, labels=torch.tensor([int(example.target[0])])).loss

    _check(there, owned, loss)
