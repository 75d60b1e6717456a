"""PEFT's own adapters: peft's logits under our values, one client at a time, the base untouched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from peft import PeftType, get_peft_model, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, ViTConfig, ViTForImageClassification

from atoll.adapters.build import build_adapter
from atoll.adapters.site import Frame
from atoll.config.adapter import Adapter
from atoll.config.peft_methods import PEFT_METHODS, REFUSED
from atoll.errors import ConfigError, ModelError
from atoll.models.base import Base
from atoll.models.locate import Source, fingerprint
from atoll.models.objective import Batch
from tests.support.federation import Site, distance, moved, site, stir
from tests.support.methods import TUNERS, fits
from tests.support.models import Zoo

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    # frod multiplies with sparse tensors, of which torch warns once.
    pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning"),
]

CASES = [
    *((kind, method) for method in TUNERS for kind in ("bert", "llama")),
    *(("gpt2", method) for method in ("dora", "vera", "ln_tuning", "fourierft", "vblora")),
]


def test_every_type_of_peft_trains_or_is_refused() -> None:
    """A new version of peft with a new type is met here first."""
    ours = {"lora", "ia3", *PEFT_METHODS, *REFUSED} - {"dora"}
    assert ours == {kind.value.lower() for kind in PeftType}
    assert not PEFT_METHODS & REFUSED.keys()


def _there(zoo: Zoo, kind: str, method: str, **asked: Any) -> Site:
    adapter = fits(method, kind)
    assert adapter is not None
    return site(zoo, kind, adapter=adapter, dtype="float32", **asked)


def _wrapped(there: Site, zoo: Zoo, kind: str, values: Mapping[str, Tensor]) -> Any:
    """The model that peft makes from our configuration, with our values loaded by peft."""
    assert there.built.peft is not None
    auto = AutoModel if kind == "bert" else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1234)  # whatever peft draws, the file says otherwise
        wrapped = get_peft_model(auto.from_pretrained(zoo(kind)).eval(), there.built.peft.config())
    tree = {key: values[name] for key, name in there.built.peft.keys.items()}
    set_peft_model_state_dict(wrapped, tree | there.built.peft.fixed)
    return wrapped.eval()


@pytest.mark.parametrize(("kind", "method"), CASES, ids=lambda case: str(case))
@pytest.mark.filterwarnings("ignore::UserWarning")  # of peft, when a user makes its model
def test_logits_are_pefts(zoo: Zoo, kind: str, method: str) -> None:
    there = _there(zoo, kind, method)
    values = stir(there.values, 7)
    batch = there.bench.objective.collate(list(there.bench.examples("cy", "train")[:3]))
    with torch.no_grad():
        found = there.built.model.forward(
            {n: v.unsqueeze(0) for n, v in values.items()}, batch.inputs, Frame(1)
        )
        output = _wrapped(there, zoo, kind, values)(**batch.inputs)
    if kind == "bert":
        mask = batch.inputs["attention_mask"].unsqueeze(-1)
        pooled = (output.last_hidden_state * mask).sum(1) / mask.sum(1)
        want = pooled @ values["classifier.weight"].T + values["classifier.bias"]
    else:
        want = output.logits
    scale = max(1.0, float(want.abs().max()))
    assert float((found - want).abs().max()) < 1e-5 * scale
    # The adapter is in it: the base alone says something else.
    plain = there.base.model(**batch.inputs)
    assert float((getattr(plain, "logits", plain) - want).abs().max()) > 1e-4


@pytest.mark.parametrize("method", TUNERS)
def test_it_trains_and_leaves_the_base_and_other_clients_alone(zoo: Zoo, method: str) -> None:
    base = zoo.base("bert", dtype="float32", labels=4)
    before = fingerprint(base.model)
    there = _there(zoo, "bert", method)
    assert there.built.alone is not None
    assert there.built.alone.startswith(f"{method} runs in PEFT's own modules")
    own = {client: stir(there.values, 10 + k) for k, client in enumerate(("ada", "bob"))}
    both, failed = there.train(group_size=1, clients=("ada", "bob"), own=own)
    assert not failed
    bob, _ = there.train(group_size=1, clients=("bob",), own=own)
    assert all(torch.equal(v, both["bob"].end[n]) for n, v in bob["bob"].end.items())
    if method != "trainable_tokens":  # whose tokens stand in few rows
        changes = moved(both["ada"])
        assert min(float(value.abs().max()) for value in changes.values()) > 0
    assert fingerprint(there.base.model) == before
    assert not any(p.requires_grad for p in there.base.model.parameters())
    assert not any(m.training for m in there.built.model.model.modules())


@pytest.mark.parametrize("method", ["dora", "vera", "loha", "vblora"])
def test_first_values_come_from_the_seed_and_constants_from_the_settings(
    zoo: Zoo, method: str
) -> None:
    here, there = _there(zoo, "bert", method), _there(zoo, "bert", method)
    first, again = here.built.model.init(3), there.built.model.init(3)
    assert first.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    other = here.built.model.init(4)
    drawn = any(not torch.equal(value, other[name]) for name, value in first.items())
    assert drawn == (method != "vera")  # vera starts from constants
    assert here.built.peft is not None
    assert there.built.peft is not None
    assert here.built.peft.fixed.keys() == there.built.peft.fixed.keys()
    for key, value in here.built.peft.fixed.items():
        assert torch.equal(value, there.built.peft.fixed[key])
    assert bool(here.built.peft.fixed) == (method == "vera")


def test_dropout_is_the_adapters_alone_and_the_clients_own(zoo: Zoo) -> None:
    adapter = {"method": "dora", "config": {"r": 2, "lora_dropout": 0.5}}
    there = site(zoo, adapter=adapter, train={"max_steps": 2})
    first, _ = there.train(group_size=1)
    torch.manual_seed(99)  # nothing reads the global generator
    again, _ = there.train(group_size=1)
    assert all(torch.equal(v, again["cy"].end[n]) for n, v in first["cy"].end.items())
    still = site(zoo, adapter={"method": "dora", "config": {"r": 2}}, train={"max_steps": 2})
    calm, _ = still.train(group_size=1)
    assert distance(calm["cy"].end, first["cy"].end) > 1e-6
    # Without dropout of its own, training reads no noise: the base's dropout stays off.
    batch = still.bench.objective.collate(list(still.bench.examples("cy", "train")[:3]))
    values = {n: v.unsqueeze(0) for n, v in stir(still.values, 1).items()}
    noisy = Frame(1, ((3, 9),), (torch.Generator().manual_seed(1),))
    found = still.built.model.forward(values, batch.inputs, noisy)
    torch.testing.assert_close(found, still.built.model.forward(values, batch.inputs, Frame(1)))


def test_an_idle_pooler_is_left_out_and_a_named_one_refused(zoo: Zoo) -> None:
    adapter = {"method": "dora", "config": {"target_modules": "all-linear", "r": 2}}
    there = site(zoo, adapter=adapter)
    assert there.built.dropped == ("pooler.dense",)
    assert not any("pooler" in name or "classifier.lora" in name for name in there.values)
    with pytest.raises(ModelError) as caught:
        site(zoo, adapter={"method": "dora", "config": {"target_modules": ["pooler.dense"]}})
    assert str(caught.value) == (
        "adapter.config.target_modules names pooler.dense, which no gradient reaches with this "
        "task and pooling; leave it out"
    )


def test_a_head_is_not_adapted_but_trained(zoo: Zoo) -> None:
    adapter = {"method": "loha", "config": {"target_modules": "all-linear", "r": 2}}
    there = site(zoo, "bert-with-pooler", pooling="model", adapter=adapter)
    assert "classifier" not in there.built.targets
    assert "bert.pooler.dense" in there.built.targets
    assert there.values["classifier.weight"].shape == (4, 32)
    with pytest.raises(ModelError, match="names only the head 'classifier', which trains whole"):
        site(zoo, "bert-with-pooler", pooling="model",
             adapter={"method": "loha", "config": {"target_modules": ["classifier"]}})  # fmt: skip


def test_vision_transformers_too() -> None:
    torch.manual_seed(0)
    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                       intermediate_size=24, image_size=8, patch_size=4, num_labels=3)  # fmt: skip
    model = ViTForImageClassification(config).requires_grad_(False).eval()
    source, auto = Source("x", "x"), "AutoModelForImageClassification"
    base = Base(model, model, "", None, source, auto, "classifier")
    pixels = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    probe = Batch({"pixel_values": pixels}, torch.zeros(2, 1, dtype=torch.long))
    settings = {"r": 2, "target_modules": ["q_proj", "fc2"]}
    built = build_adapter(base, Adapter(method="dora", config=settings), probe)
    assert built.peft is not None
    values = stir(built.model.init(0), 1)
    found = built.model.forward({n: v.unsqueeze(0) for n, v in values.items()},
                                {"pixel_values": pixels}, Frame(1))  # fmt: skip
    plain = ViTForImageClassification(config).eval()
    plain.load_state_dict({**model.state_dict(), **{n: v for n, v in values.items()
                                                    if n.startswith("classifier.")}})  # fmt: skip
    wrapped: Any = get_peft_model(plain, built.peft.config())
    set_peft_model_state_dict(wrapped, {k: values[n] for k, n in built.peft.keys.items()})
    torch.testing.assert_close(found, wrapped(pixel_values=pixels).logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "method", "config", "words"),
    [
        ("gpt2", "loha", {}, "PEFT cannot adapt {model} so: Target module of type"),
        ("gpt2", "beft", {}, "name the modules in adapter.config.target_modules"),
        ("llama", "c3a", {"block_size": 7}, "The block size should be a factor"),
        ("llama", "dora", {"target_modules": ["zzz"]}, "Target modules {{'zzz'}} not found in the "
         "base model"),
        ("llama", "dora", {"r": -1}, "`r` should be a positive integer value"),
    ],
)  # fmt: skip
def test_what_peft_refuses_is_told_in_a_sentence(
    zoo: Zoo, kind: str, method: str, config: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        site(zoo, kind, adapter={"method": method, "config": config})
    told = str(caught.value)
    assert told.startswith(f"adapter.method is {method}, but PEFT cannot adapt ")
    assert words.format(model=zoo(kind)) in told
    assert "\n" not in told


def test_a_start_that_changes_the_base_is_refused(zoo: Zoo) -> None:
    """PEFT's MiSS, started as `bat`, or whatever else a version of PEFT may write to the base."""
    adapter = {"method": "dora", "config": {"init_lora_weights": "pissa"}}
    with pytest.raises(ModelError, match="changes the weights of the base itself"):
        site(zoo, "llama", adapter=adapter, dtype="float32")


def test_values_that_peft_saves_in_another_form_are_refused(zoo: Zoo) -> None:
    config = {"vector_length": 8, "num_vectors": 16, "save_only_topk_weights": True}
    with pytest.raises(ModelError, match="in another form in PEFT's file"):
        site(zoo, "llama", adapter={"method": "vblora", "config": config}, dtype="float32")


def test_a_precision_that_peft_cannot_run_in_is_told(zoo: Zoo) -> None:
    with pytest.raises(ModelError) as caught:
        site(zoo, "llama", adapter={"method": "ln_tuning"}, dtype="bfloat16")
    told = str(caught.value)
    assert told.startswith(
        "adapter.method is ln_tuning, which PEFT could not run on this model in bfloat16: "
    )
    assert told.endswith("; change adapter.config or model.dtype")


def test_the_copy_shares_every_weight(zoo: Zoo) -> None:
    there = _there(zoo, "llama", "dora")
    copied: nn.Module = there.built.model.model
    assert copied is not there.base.model
    shared = {id(p) for p in copied.parameters()} & {id(p) for p in there.base.model.parameters()}
    assert len(shared) == len(list(there.base.model.parameters()))
    assert not any("lora" in name for name, _ in there.base.model.named_parameters())


def test_a_value_that_never_trains_is_refused(zoo: Zoo) -> None:
    """TinyLoRA keeps one vector for each target; that of an idle pooler would stay as it is."""
    config = {"target_modules": "all-linear", "r": 2}
    with pytest.raises(ModelError) as caught:
        site(zoo, adapter={"method": "tinylora", "config": config}, dtype="float32")
    told = str(caught.value)
    assert told.startswith("no gradient reaches base_model.tinylora_v.")
    assert told.endswith("never train; use another adapter.method than tinylora")


def test_what_peft_remarks_on_its_settings_is_kept_for_the_user(zoo: Zoo) -> None:
    config = {"r": 2, "rank_pattern": {"zzz": 4}}
    there = site(zoo, "gpt2", adapter={"method": "dora", "config": config})
    (remark,) = there.built.remarks
    assert remark == (
        "The following rank_pattern keys did not match any targeted module and were ignored: "
        "['zzz']."
    )
    assert site(zoo, "gpt2", adapter={"method": "dora", "config": {"r": 2}}).built.remarks == ()
