"""Base weights of 8 bits, where the package that rounds them is there; else a sentence."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from atoll.errors import ModelError
from atoll.models.base import Base, Head, load_base
from atoll.models.eight_bits import eight_bit_options
from atoll.models.locate import Source, fingerprint, locate
from tests.support.federation import distance, stir, text_rows
from tests.support.models import Zoo
from tests.support.task_sites import site_of

MISSING = importlib.util.find_spec("torchao") is None
needs = pytest.mark.skipif(MISSING, reason="torchao is not installed")


def rounded(zoo: Zoo, kind: str = "llama", **options: Any) -> Base:
    source = locate(zoo(kind))
    eight = Source(source.path, source.hub_id, load_in_8bit=True)
    return load_base(eight, dtype="float32", **options)


def test_without_its_package_it_is_refused(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="needs the package torchao; pip install torchao"):
        eight_bit_options()


@needs
def test_weights_are_rounded_by_rows(zoo: Zoo) -> None:
    base, plain = rounded(zoo), load_base(locate(zoo("llama")), dtype="float32")
    name = "model.layers.0.mlp.up_proj.weight"
    weight = dict(plain.model.named_parameters())[name]
    found: Any = dict(base.model.named_parameters())[name]
    scale = weight.abs().amax(1, keepdim=True) / 127
    gap = (found.dequantize() - weight).abs()
    assert bool((gap <= scale * 0.51).all())
    assert bool((gap > 0).any())
    assert type(base.model.get_output_embeddings().weight) is torch.nn.Parameter


@needs
def test_a_model_of_which_nothing_is_rounded_is_refused(zoo: Zoo) -> None:
    with pytest.raises(ModelError, match=r"gpt2 has no layer whose weights torchao rounds"):
        rounded(zoo, "gpt2")


@needs
def test_what_a_row_comes_to_does_not_depend_on_the_others(zoo: Zoo) -> None:
    base = rounded(zoo)
    ids = torch.arange(4, 44).view(4, 10)
    together = base.model(input_ids=ids).logits
    for row in range(4):
        alone = base.model(input_ids=ids[row : row + 1]).logits[0]
        torch.testing.assert_close(together[row], alone, rtol=1e-4, atol=1e-4)


@needs
def test_a_stack_trains_on_them(zoo: Zoo) -> None:
    from atoll.models.causal import causal

    base = rounded(zoo)
    task = causal(base.tokenizer, max_length=48)
    train = {"optimizer": "sgd", "learning_rate": 0.05}
    there = site_of(base, task, text_rows(), adapter={"r": 3}, train=train)
    there = type(there)(there.base, there.built, there.bench, stir(there.values, 1), there.clients)
    stacked, failed = there.train(group_size=5)
    alone, _ = there.train(group_size=1)
    assert not failed
    for client, one in alone.items():
        assert distance(stacked[client].end, one.end) < 1e-5
        assert distance(one.end, there.values) > 1e-4


@needs
def test_a_head_keeps_its_precision_and_the_fingerprint_knows_the_bits(zoo: Zoo) -> None:
    head = Head(num_labels=3, pooling="model")
    base = rounded(zoo, "bert-with-pooler", head=head)
    assert type(base.model.get_parameter("classifier.weight")) is torch.nn.Parameter
    plain = load_base(locate(zoo("bert-with-pooler")), dtype="float32", head=head)
    prints = [fingerprint(one.backbone) for one in (base, plain)]
    again = rounded(zoo, "bert-with-pooler", head=head)
    assert fingerprint(again.backbone) == prints[0] != prints[1]
