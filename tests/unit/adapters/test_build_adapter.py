"""The probe: idle targets, models that clients cannot share, and adapters that could not train."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from atoll.adapters.build import build_adapter
from atoll.config.adapter import Adapter
from atoll.errors import ModelError
from atoll.models.base import Base
from atoll.models.locate import Source
from atoll.models.objective import Batch
from tests.support.federation import distance, labelled_rows, moved, site, stir
from tests.support.models import Zoo


def test_a_pooler_that_nothing_reads_is_dropped_from_all_linear(zoo: Zoo) -> None:
    built = site(zoo).built
    assert built.dropped == ("pooler.dense",)
    assert "pooler.dense" not in built.targets
    assert built.alone is None
    assert len(built.targets) == 12


def test_a_pooler_that_is_read_is_adapted(zoo: Zoo) -> None:
    there = site(zoo, "bert-with-pooler", pooling="model")
    assert there.built.dropped == ()
    assert "bert.pooler.dense" in there.built.targets
    assert there.base.head == "classifier"


def test_a_pooler_that_the_checkpoint_lacks_trains_whole(zoo: Zoo) -> None:
    there = site(zoo, pooling="model")
    assert there.base.fresh == ("bert.pooler.dense.bias", "bert.pooler.dense.weight")
    assert "bert.pooler.dense" not in there.built.targets
    assert set(there.base.fresh) <= there.values.keys()


@pytest.mark.parametrize("rule", [("query", "pooler.dense"), r".*pooler\.dense|.*query"])
def test_an_idle_target_that_was_named_is_refused(zoo: Zoo, rule: Any) -> None:
    with pytest.raises(ModelError) as caught:
        site(zoo, adapter={"target_modules": rule})
    assert str(caught.value) == (
        "adapter.target_modules names pooler.dense, which no gradient reaches with this task and "
        "pooling; leave it out"
    )


def test_a_target_list_that_names_only_the_head_is_refused(zoo: Zoo) -> None:
    with pytest.raises(ModelError) as caught:
        site(zoo, pooling="model", adapter={"target_modules": ("classifier",)})
    assert str(caught.value) == (
        "adapter.target_modules names only the head 'classifier', which trains whole, or modules "
        "that no gradient reaches, and nothing for lora to train; name other layers, or use "
        "another adapter.method"
    )


def test_bitfit_leaves_idle_biases_out(zoo: Zoo) -> None:
    there = site(zoo, adapter={"method": "bitfit"})
    assert there.built.dropped == ("pooler.dense",)
    assert "backbone.embeddings.LayerNorm.bias" in there.values
    assert not any("pooler" in name for name in there.values)


def test_bitfit_needs_biases(zoo: Zoo) -> None:
    with pytest.raises(ModelError, match="bias"):
        site(zoo, "llama", adapter={"method": "bitfit"})


def test_a_language_model_has_no_head_to_train_alone(zoo: Zoo) -> None:
    with pytest.raises(ModelError, match="no head that could train; use lora"):
        site(zoo, "gpt2", adapter={"method": "none"})


@pytest.mark.parametrize(("kind", "transposed"), [("gpt2", True), ("llama", False)])
def test_peft_is_told_where_weights_are_transposed(zoo: Zoo, kind: str, transposed: bool) -> None:
    built = site(zoo, kind).built
    assert built.peft is not None
    assert built.peft.config().fan_in_fan_out is transposed
    assert set(built.peft.config().target_modules) == set(built.targets)


def test_gpt2_adapts_all_but_its_output(zoo: Zoo) -> None:
    built = site(zoo, "gpt2").built
    assert built.alone is None
    assert "lm_head" not in built.targets
    assert len(built.targets) == 8


def test_a_head_of_two_layers_trains_whole(zoo: Zoo) -> None:
    there = site(zoo, "roberta", pooling="model", adapter={"target_modules": ("query",), "r": 2})
    assert there.base.head == "classifier.out_proj"
    heads = {name for name in there.values if name.startswith("classifier.")}
    assert heads == {f"classifier.{part}.{kind}" for part in ("dense", "out_proj")
                     for kind in ("weight", "bias")}  # fmt: skip
    stacked, _ = there.train(group_size=5)
    alone, _ = there.train(group_size=1)
    for client, one in alone.items():
        assert distance(moved(stacked[client]), moved(one)) < 1e-10


def test_a_model_that_calls_its_layers_with_another_leading_dimension(zoo: Zoo) -> None:
    there = site(zoo, "deberta", rows=labelled_rows({"ada": 3, "bob": 2}))
    assert there.built.alone is not None
    assert "does not see one row for each row of the batch" in there.built.alone
    trained, failures = there.train(group_size=1)
    assert not failures
    assert all(one.loss > 0 for one in trained.values())


class _WithBatchNorm(nn.Module):
    """A user's model: embeddings, batch normalisation, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(pad_token_id=0, model_type="odd")
        self.embed = nn.Embedding(40, 8)
        self.dense = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.classifier = nn.Linear(8, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.dense(self.embed(input_ids)).mean(1)
        return self.classifier(self.norm(hidden))


def _base(model: nn.Module, head: str | None = "classifier") -> Base:
    model.requires_grad_(False).eval()
    return Base(model, model, "", None, Source("x", "x"), "AutoModel", head)


def _probe() -> Batch:
    ids = torch.randint(1, 40, (2, 5), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return Batch(inputs, torch.zeros(2, 1, dtype=torch.long))


def test_batch_statistics_cannot_be_shared() -> None:
    built = build_adapter(_base(_WithBatchNorm()), Adapter(r=2), _probe())
    assert built.alone == "norm normalises over the batch, which clients must not share"
    assert built.targets == ("dense",)


class _Centred(_WithBatchNorm):
    """Reads how a row differs from its batch, in a few of its features or in none."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.norm, self.share = nn.Identity(), share

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.dense(self.embed(input_ids)).mean(1)
        return self.classifier(hidden - self.share * hidden.mean(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_model_that_looks_across_the_batch_trains_one_client_at_a_time(
    dtype: torch.dtype,
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        models = [_Centred(share).to(dtype) for share in (0.0, 1.0)]
    apart, mixing = (build_adapter(_base(model), Adapter(r=2), _probe()) for model in models)
    assert apart.alone is apart.model.alone is None
    assert mixing.alone == mixing.model.alone
    assert mixing.alone == "what the model makes of a row depends on the rows beside it"


def test_a_full_model_trains_alone(zoo: Zoo) -> None:
    there = site(zoo, adapter={"method": "full"})
    assert there.built.alone == "a full model trains one client at a time"
    assert there.built.model.drops
    assert there.built.peft is None
    assert there.built.targets == ()
    names = {name for name, _ in there.base.model.named_parameters()}
    assert there.values.keys() == {name for name in names if "pooler" not in name}


def test_the_probe_leaves_no_trace(zoo: Zoo) -> None:
    there = site(zoo)
    assert not any(m._forward_pre_hooks for m in there.base.model.modules())
    assert all(p.grad is None and not p.requires_grad for p in there.base.model.parameters())
    hooked = [n for n, m in there.base.model.named_modules() if m._forward_hooks]
    assert len(hooked) == len(there.built.targets) + 1  # and the head
    assert not there.base.model.training


def test_a_second_adapter_on_the_same_model_starts_afresh(zoo: Zoo) -> None:
    there = site(zoo, adapter={"target_modules": ("query",)})
    there.built.model.close()
    again = build_adapter(there.base, Adapter(target_modules=("query",)),
                          there.bench.objective.collate(
                              there.bench.examples("ada", "train")[:2]))  # fmt: skip
    moved_values = stir(there.values, 1)
    changed = replace(there, built=again, values=moved_values,
                      bench=replace(there.bench, model=again.model))  # fmt: skip
    expected = replace(site(zoo, adapter={"target_modules": ("query",)}), values=moved_values)
    found, _ = changed.train(group_size=5)
    want, _ = expected.train(group_size=5)
    assert all(torch.equal(found["cy"].end[n], v) for n, v in want["cy"].end.items())
