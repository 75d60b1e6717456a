"""DP-SGD against plain loops, a row at a time by autograd, clipped and added up; and opacus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    get_scheduler,
)

from atoll.data.images import open_image
from atoll.local.per_example import PerExample, exchange_key, poisson_steps
from atoll.local.train import LocalRule
from atoll.models.classification import class_terms
from atoll.models.images import pixels_of
from atoll.models.locate import locate
from atoll.models.objective import Example
from atoll.models.vision import image_classification, load_vision
from tests.support.federation import Site, distance, moved, site, stir
from tests.support.gallery import Gallery
from tests.support.images import COLOURS
from tests.support.models import Zoo
from tests.support.plain import causal_loss, classifier_loss, load_into
from tests.support.task_sites import image_rows, site_of

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

KEY = bytes(range(32))
STEP: dict[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": 1.0,
    "max_steps": 1,
    # What clips rows stands in its place.
    "max_grad_norm": 1e-6,
}
Loss = Callable[[Example], Tensor]
Named = Mapping[str, nn.Parameter]


def rule(clip: float, *, noise: float = 0.0, rate: float = 1.0, **more: Any) -> LocalRule:
    return LocalRule(private=PerExample(clip, noise, lambda context: KEY, rate), **more)


def clipped_sum(
    parameters: Named, loss: Loss, rows: Iterable[Example], clip: float
) -> dict[str, Tensor]:
    """Micro-batches of one."""
    total = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for row in rows:
        found = torch.autograd.grad(loss(row), list(parameters.values()))
        norm = torch.cat([one.flatten() for one in found]).norm()
        for name, one in zip(parameters, found, strict=True):
            total[name] += one * min(1.0, clip / float(norm))
    return total


def mean_loss(there: Site, loss: Loss) -> Loss:
    """Of a row's own predictions, whatever other rows have."""
    return lambda row: loss(row) / there.bench.objective.count(row)


def lora_and_head(there: Site, zoo: Zoo, dtype: torch.dtype) -> tuple[Named, Loss]:
    backbone = AutoModel.from_pretrained(zoo("bert"), dtype=dtype).eval()
    config = LoraConfig(r=4, lora_alpha=8, target_modules=r".*(query|intermediate\.dense)")
    model = get_peft_model(backbone, config).eval()
    names = load_into(model, there.values, prefix="backbone.")
    weight = there.values["classifier.weight"]
    head = nn.Linear(*weight.T.shape, dtype=dtype)
    head.weight.data, head.bias.data = weight.clone(), there.values["classifier.bias"].clone()
    named = dict(zip(names, (p for p in model.parameters() if p.requires_grad), strict=True))
    named |= {"classifier.weight": head.weight, "classifier.bias": head.bias}
    return named, classifier_loss(model, head)


def bert(zoo: Zoo, dtype: str, train: Mapping[str, Any] = STEP) -> tuple[Site, Named, Loss]:
    adapter = {"r": 4, "lora_alpha": 8.0, "target_modules": r".*(query|intermediate\.dense)"}
    there = site(zoo, adapter=adapter, train=train, dtype=dtype)
    there = replace(there, values=stir(there.values, 1))
    return there, *lora_and_head(there, zoo, getattr(torch, dtype))


def language(zoo: Zoo, dtype: str, kind: str) -> tuple[Site, Named, Loss]:
    names = {"gpt2": ("c_attn", "mlp.c_proj"), "llama": ("q_proj", "down_proj")}[kind]
    adapter = {"r": 2, "lora_alpha": 16.0, "target_modules": names}
    there = site(zoo, kind, adapter=adapter, train=STEP, dtype=dtype)
    there = replace(there, values=stir(there.values, 1))
    model = AutoModelForCausalLM.from_pretrained(zoo(kind), dtype=getattr(torch, dtype))
    config = LoraConfig(r=2, lora_alpha=16, target_modules=list(names),
                        fan_in_fan_out=kind == "gpt2")  # fmt: skip
    model = get_peft_model(model, config).eval()
    ours = load_into(model, there.values)
    named = dict(zip(ours, (p for p in model.parameters() if p.requires_grad), strict=True))
    return there, named, mean_loss(there, causal_loss(model))


def vit(gallery: Gallery, dtype: str) -> tuple[Site, Named, Loss]:
    base = load_vision(locate(gallery("vit")), num_labels=3, dtype=dtype)
    assert base.processor is not None
    pixels = pixels_of(base.processor, base.source)
    weights = [0.5, 2.0, 1.5]
    terms = class_terms(3, weights=weights)
    task = image_classification(pixels, opened=open_image, labels=sorted(COLOURS), terms=terms)
    adapter = {"r": 3, "lora_alpha": 6.0, "target_modules": ("q_proj", "v_proj")}
    there = site_of(base, task, image_rows(), adapter=adapter, train=STEP)
    there = replace(there, values=stir(there.values, 1))
    exact = getattr(torch, dtype)
    plain: Any = AutoModelForImageClassification.from_pretrained(
        gallery("vit"), num_labels=3, ignore_mismatched_sizes=True, dtype=exact
    )
    config = LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "v_proj"])
    model = get_peft_model(plain, config).eval()
    names = load_into(model, there.values)
    named = dict(zip(names, (p for p in model.parameters() if p.requires_grad), strict=True))
    for key in ("weight", "bias"):
        value = nn.Parameter(there.values[f"classifier.{key}"].clone())
        plain.classifier._parameters[key] = named[f"classifier.{key}"] = value

    def loss(row: Example) -> Tensor:
        logits = model(pixel_values=pixels.unpack([row.pixels]).to(exact)).logits
        return weights[int(row.target[0])] * -logits[0].log_softmax(-1)[int(row.target[0])]

    return there, named, loss


FAMILIES: dict[str, Callable[[Zoo, Gallery, str], tuple[Site, Named, Loss]]] = {
    "llama": lambda zoo, gallery, dtype: language(zoo, dtype, "llama"),
    "gpt2": lambda zoo, gallery, dtype: language(zoo, dtype, "gpt2"),
    "bert": lambda zoo, gallery, dtype: bert(zoo, dtype),
    "vit": lambda zoo, gallery, dtype: vit(gallery, dtype),
}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 1e-5)])
@pytest.mark.parametrize("name", FAMILIES)
def test_clipped_sums_are_those_of_micro_batches_of_one(
    name: str, dtype: str, tolerance: float, zoo: Zoo, gallery: Gallery
) -> None:
    there, parameters, loss = FAMILIES[name](zoo, gallery, dtype)
    norms = [
        torch.cat([g.flatten() for g in torch.autograd.grad(loss(row), list(parameters.values()))])
        for client in there.clients for row in there.bench.examples(client, "train")
    ]  # fmt: skip
    clip = float(torch.stack([one.norm() for one in norms]).median())
    # Five uneven clients in one pass, whose rows come in several pieces.
    trained, failures = there.train(group_size=5, rule=rule(clip))
    assert not failures
    for client in there.clients:
        rows = there.bench.examples(client, "train")
        want = clipped_sum(parameters, loss, rows, clip)
        assert trained[client].end.keys() == want.keys()
        found = {n: value * -len(rows) for n, value in moved(trained[client]).items()}
        scale = torch.cat([value.flatten() for value in want.values()]).norm()
        gap = torch.cat([(found[n] - want[n]).flatten() for n in want]).norm()
        # A single step of 1 hides what is smaller than the last bit of the values.
        assert float(gap / scale) < tolerance, client


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
def test_opacus_has_the_same_clipped_sum(zoo: Zoo) -> None:
    from opacus import GradSampleModule

    there, _, _ = language(zoo, "float64", "llama")
    names = ("q_proj", "down_proj")
    model = AutoModelForCausalLM.from_pretrained(zoo("llama"), dtype=torch.float64)
    model = get_peft_model(model, LoraConfig(r=2, lora_alpha=16, target_modules=list(names)))
    ours = load_into(model, there.values)
    theirs = GradSampleModule(model.train(), loss_reduction="sum")
    rows = there.bench.examples("cy", "train")
    batch = there.bench.objective.collate(rows)
    logits = theirs(**batch.inputs).logits[:, :-1].transpose(1, 2)
    target = batch.target[:, 1:]
    losses = cross_entropy(logits, target, reduction="none").sum(1) / (target >= 0).sum(1)
    losses.sum().backward()
    samples = dict(zip(ours, (p.grad_sample for p in model.parameters() if p.requires_grad),
                       strict=True))  # fmt: skip
    norms = torch.cat([one.flatten(1) for one in samples.values()], dim=1).norm(dim=1)
    clip = float(norms.median())
    assert 0 < int((norms > clip).sum()) < len(rows)
    factors = (clip / norms).clamp(max=1)
    want = {n: torch.einsum("n,n...->...", factors, one) for n, one in samples.items()}
    trained, _ = there.train(group_size=5, rule=rule(clip))
    found = {n: value * -len(rows) for n, value in moved(trained["cy"]).items()}
    assert distance(found, want) < 1e-10


ADAMW: dict[str, Any] = {
    "optimizer": "adamw",
    "learning_rate": 2e-3,
    "weight_decay": 0.1,
    "lr_scheduler_type": "linear",
    "warmup_steps": 2,
    "max_steps": 6,
}
SGD: dict[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "momentum": 0.9,
    "weight_decay": 0.02,
    "max_steps": 6,
}


@pytest.mark.parametrize("train", [ADAMW, SGD], ids=["adamw", "sgd"])
def test_the_whole_of_algorithm_1(zoo: Zoo, train: dict[str, Any]) -> None:
    """Poisson batches, some of them empty; a proximal term and a control variate after the clip."""
    there, parameters, loss = bert(zoo, "float64", train)
    client, rate, clip, mu = "dee", 0.3, 0.4, 0.7
    offset = stir(there.values, 9)
    private = PerExample(clip, 0.0, lambda context: KEY, rate)
    bent = LocalRule(private=private, proximal=mu, offset=lambda request: offset)
    trained, failures = there.train(group_size=5, rule=bent)
    assert not failures
    rows = there.bench.examples(client, "train")
    (request,) = there.requests(clients=[client])
    request = replace(request, context=replace(request.context, cohort=there.clients))
    steps = poisson_steps(exchange_key(private, request), rate, steps=6, rows=len(rows))
    assert {len(step) for step in steps} > {0}
    made = _optimizer(parameters, train)
    course = get_scheduler(
        there.bench.settings.lr_scheduler_type, made,
        num_warmup_steps=there.bench.settings.warmup_steps,
        num_training_steps=there.bench.num_rounds * len(steps),
    )  # fmt: skip
    start = {name: value.detach().clone() for name, value in parameters.items()}
    for step in steps:
        total = clipped_sum(parameters, loss, [rows[i] for i in step], clip)
        for name, value in parameters.items():
            pull = mu * (value.detach() - start[name])
            value.grad = total[name] / (rate * len(rows)) + pull + offset[name]
        made.step()
        course.step()
    assert trained[client].steps == len(steps)
    ends = {name: value.detach() for name, value in parameters.items()}
    assert distance(trained[client].start, ends) > 1e-3
    assert distance(trained[client].end, ends) < 1e-9


def _optimizer(parameters: Named, train: Mapping[str, Any]) -> torch.optim.Optimizer:
    values, rate, decay = list(parameters.values()), train["learning_rate"], train["weight_decay"]
    if train["optimizer"] == "sgd":
        return torch.optim.SGD(values, rate, momentum=train["momentum"], weight_decay=decay)
    return torch.optim.AdamW(values, rate, weight_decay=decay)
