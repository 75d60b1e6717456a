"""Pooling as written out, sentence encoders' files, and models that come as they were asked."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from atoll.errors import ModelError
from atoll.models.base import Head, load_base
from atoll.models.locate import Source, fingerprint, locate
from atoll.models.pooling import PooledClassifier, RandomFeatures, output_layer, pool
from atoll.models.sentence import pooling_of
from tests.support.models import Zoo

HIDDEN = [[[1.0, 2.0], [3.0, -2.0], [9.0, 9.0]], [[4.0, 0.0], [7.0, 7.0], [7.0, 7.0]]]
MASK = [[1, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize(("pooling", "normalize", "expected"), [
    ("mean", False, [[2.0, 0.0], [4.0, 0.0]]),
    ("mean", True, [[1.0, 0.0], [1.0, 0.0]]),
    ("cls", False, [[1.0, 2.0], [4.0, 0.0]]),
    ("cls", True, [[1 / math.sqrt(5), 2 / math.sqrt(5)], [1.0, 0.0]]),
])  # fmt: skip
def test_pooling(pooling: Any, normalize: bool, expected: list[list[float]]) -> None:
    found = pool(torch.tensor(HIDDEN), torch.tensor(MASK), pooling, normalize=normalize)
    torch.testing.assert_close(found, torch.tensor(expected))


def test_pooling_of_nothing_is_finite() -> None:
    found = pool(torch.ones(1, 2, 2), torch.zeros(1, 2, dtype=torch.long), "mean", normalize=True)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_logits_of_a_pooled_classifier(zoo: Zoo, pooling: str) -> None:
    base = zoo.base("bert", labels=3, pooling=pooling, normalize=True)
    head = base.model.classifier
    assert not head.weight.any()
    assert not head.bias.any()
    head.weight.data.normal_(generator=torch.Generator().manual_seed(1))
    head.bias.data.fill_(0.5)
    backbone = AutoModel.from_pretrained(zoo("bert"), dtype=torch.float64).eval()
    rows = ["reef tide coral", "sun"]
    batch = base.tokenizer(rows, padding=True, return_tensors="pt")
    logits = base.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    for row, text in enumerate(rows):
        hidden = backbone(**base.tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        vector = hidden.mean(0) if pooling == "mean" else hidden[0]
        expected = head.weight @ (vector / vector.norm()) + head.bias
        torch.testing.assert_close(logits[row], expected, rtol=1e-9, atol=1e-9)


def _encoder(folder: Path, settings: dict[str, Any], *, normalize: bool) -> Source:
    prefix = "sentence_transformers.models"
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{prefix}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{prefix}.Pooling"},
    ]
    if normalize:
        modules.append(
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{prefix}.Normalize"}
        )
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    return Source(str(folder), str(folder))


@pytest.mark.parametrize(("settings", "expected"), [
    ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
    ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls"),
    ({"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True}, None),
    ({"embedding_dimension": 32, "pooling_mode": "mean"}, "mean"),
    ({"embedding_dimension": 32, "pooling_mode": "cls"}, "cls"),
    ({"embedding_dimension": 32, "pooling_mode": "lasttoken"}, "last"),
    ({"embedding_dimension": 32, "pooling_mode": ["mean", "max"]}, None),
    ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, None),
])  # fmt: skip
@pytest.mark.parametrize("normalize", [False, True])
def test_sentence_encoders_say_how_they_pool(
    tmp_path: Path, settings: dict[str, Any], expected: str | None, normalize: bool
) -> None:
    source = _encoder(tmp_path / "encoder", settings, normalize=normalize)
    assert pooling_of(source, "auto", None) == (expected, normalize)
    assert pooling_of(source, "cls", False) == ("cls", False)
    assert pooling_of(source, "mean", True) == ("mean", True)
    assert pooling_of(source, "model", None)[0] is None


def test_what_sentence_transformers_saves_is_read(zoo: Zoo, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    words = Transformer(zoo("bert"))
    parts = [words, Pooling(32, pooling_mode="cls"), Normalize()]
    library.SentenceTransformer(modules=parts, device="cpu").save(str(tmp_path / "saved"))
    assert pooling_of(locate(str(tmp_path / "saved")), "auto", None) == ("cls", True)


def test_the_hubs_sentence_encoders_say_so_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache as huggingface_hub lays it out, without a network."""
    import huggingface_hub.constants as hub

    saved = tmp_path / "models--owner--encoder" / "snapshots" / ("a" * 40)
    _encoder(saved, {"pooling_mode_mean_tokens": True}, normalize=True)
    (saved / "config.json").write_text("{}")
    refs = tmp_path / "models--owner--encoder" / "refs"
    refs.mkdir()
    (refs / "main").write_text("a" * 40)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    assert pooling_of(locate("owner/encoder"), "auto", None) == ("mean", True)
    (saved / "modules.json").unlink()
    assert pooling_of(locate("owner/encoder"), "auto", None) == (None, False)


def test_a_model_without_such_files_uses_its_own_head(zoo: Zoo) -> None:
    assert pooling_of(locate(zoo("bert")), "auto", None) == (None, False)


@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta", "gpt2", "llama"])
def test_under_a_solved_head_it_pools_the_mean(zoo: Zoo, kind: str) -> None:
    base = load_base(locate(zoo(kind)), head=Head(3, otherwise="mean"))
    assert (base.auto_class, base.pooling, base.normalize) == ("AutoModel", "mean", True)
    bare = load_base(locate(zoo(kind)), head=Head(3, normalize=False, otherwise="mean"))
    assert (bare.pooling, bare.normalize) == ("mean", False)
    asked = load_base(locate(zoo(kind)), head=Head(3, "model", otherwise="mean"))
    assert asked.auto_class == "AutoModelForSequenceClassification"


def test_a_sentence_encoder_pools_as_it_was_trained_under_any_head() -> None:
    base = load_base(locate("builtin:minilm"), head=Head(2, normalize=None, otherwise="cls"))
    assert (base.pooling, base.normalize) == ("mean", True)


@pytest.mark.parametrize("broken", ["{", "[]", '[{"type": "a.Pooling"}]', '{"a": 1}'])
def test_broken_files_are_refused(tmp_path: Path, broken: str) -> None:
    (tmp_path / "modules.json").write_text(broken)
    with pytest.raises(ModelError, match=r"set model\.pooling to mean, cls or model"):
        pooling_of(Source(str(tmp_path), "x"), "auto", None)


def test_minilm_knows_that_two_sentences_mean_the_same() -> None:
    """0.94 is what the model's card gives for this pair."""
    base = load_base(locate("builtin:minilm"), head=Head(2))
    assert (base.pooling, base.normalize) == ("mean", True)
    rows = ["That is a happy person", "That is a very happy person", "The tax form is due"]
    batch = base.tokenizer(rows, padding=True, return_tensors="pt")
    caught: list[torch.Tensor] = []
    hook = base.model.classifier.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    base.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    hook.remove()
    torch.testing.assert_close(caught[0].norm(dim=1), torch.ones(3))
    assert float(caught[0][0] @ caught[0][1]) == pytest.approx(0.94, abs=0.005)
    assert float(caught[0][0] @ caught[0][2]) < 0.3
    assert base.source.hub_id == "sentence-transformers/all-MiniLM-L6-v2"


def test_random_features_approach_the_gaussian_kernel() -> None:
    layer = RandomFeatures(6, 40_000, seed=3)
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x / x.norm(dim=1, keepdim=True)
    found = layer(x) @ layer(x).T
    expected = torch.exp(-0.5 * torch.cdist(x, x) ** 2)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.03)
    assert torch.equal(RandomFeatures(6, 10, seed=3).weight, RandomFeatures(6, 10, seed=3).weight)
    assert not torch.equal(
        RandomFeatures(6, 10, seed=3).weight, RandomFeatures(6, 10, seed=4).weight
    )


def test_random_features_sit_under_the_head(zoo: Zoo) -> None:
    base = load_base(locate(zoo("bert")), head=Head(3, "mean", random_features=50, seed=1))
    assert base.model.classifier.in_features == 50
    assert base.normalize
    assert not any(name.startswith("random") for name, _ in base.model.named_parameters())
    with pytest.raises(ModelError, match=r"set model\.pooling to mean or cls"):
        load_base(locate(zoo("bert")), head=Head(3, "model", random_features=50))


def test_a_base_is_frozen_and_pads(zoo: Zoo) -> None:
    for kind, labels in (("bert", 3), ("gpt2", None), ("llama", None)):
        base = zoo.base(kind, labels=labels, dtype="auto")
        assert not base.model.training
        assert not any(p.requires_grad for p in base.model.parameters())
        assert base.tokenizer.padding_side == "right"
        assert base.tokenizer.pad_token_id is not None
        assert base.backbone.config.pad_token_id is not None
        assert {p.dtype for p in base.model.parameters()} == {torch.float32}


def test_dtypes(zoo: Zoo) -> None:
    half = zoo.base("bert", labels=3, dtype="bfloat16")
    assert next(half.backbone.parameters()).dtype == torch.bfloat16
    assert half.model.classifier.weight.dtype == torch.float32
    batch = half.tokenizer(["reef"], return_tensors="pt")
    logits = half.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    assert logits.dtype == torch.float32
    double = zoo.base("bert", labels=3, dtype="float64")
    assert double.model.classifier.weight.dtype == torch.float64


def test_a_new_head_comes_from_its_seed_alone(zoo: Zoo) -> None:
    source = locate(zoo("bert"))

    def head(seed: int) -> torch.Tensor:
        model = load_base(source, head=Head(3, "model", seed=seed)).model
        return model.classifier.weight.detach()

    before = torch.get_rng_state()
    first = head(1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert torch.equal(head(1), first)
    assert not torch.equal(head(2), first)
    assert first.any()


def test_the_same_bytes_have_the_same_fingerprint(zoo: Zoo) -> None:
    one = AutoModel.from_pretrained(zoo("gpt2"))
    two = AutoModel.from_pretrained(zoo("gpt2"))
    assert fingerprint(one) == fingerprint(two)
    two.get_parameter("wpe.weight").data[0, 0] += 1e-3
    assert fingerprint(one) != fingerprint(two)
    assert fingerprint(one.to(torch.bfloat16)) != fingerprint(one.float())


def test_the_head_is_the_last_linear_layer(zoo: Zoo) -> None:
    for kind, name in (("bert", "classifier"), ("roberta", "classifier.out_proj"),
                       ("gpt2", "score"), ("llama", "score")):  # fmt: skip
        model = AutoModelForSequenceClassification.from_pretrained(zoo(kind), num_labels=3)
        assert output_layer(model) == name
    with pytest.raises(ModelError, match=r"set model\.pooling to mean or cls"):
        output_layer(AutoModel.from_pretrained(zoo("bert")))


def test_a_decoder_classifies_with_its_last_token(zoo: Zoo) -> None:
    base = zoo.base("llama", labels=3, pooling="auto")
    assert (base.auto_class, base.head) == ("AutoModelForSequenceClassification", "score")
    rows = ["reef", "a longer row"]
    batch = base.tokenizer(rows, padding=True, return_tensors="pt")
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    logits = base.model(**inputs).logits
    for row, text in enumerate(rows):
        alone = base.model(**base.tokenizer(text, return_tensors="pt")).logits
        torch.testing.assert_close(logits[row], alone[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "message"), [
    ("builtin:mini", "there is no model 'builtin:mini' (did you mean builtin:minilm?); there is "
     "builtin:minilm and builtin:smollm2"),
    ("./nowhere", "model folder ./nowhere does not exist"),
    ("/a/b/c", "model folder /a/b/c does not exist"),
])  # fmt: skip
def test_names_that_lead_nowhere(name: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        locate(name)
    assert str(caught.value) == message


def test_folders_that_hold_no_model(tmp_path: Path, zoo: Zoo) -> None:
    with pytest.raises(ModelError, match=r"holds no config.json; give the directory"):
        locate(str(tmp_path))
    (tmp_path / "config.json").write_text("{broken")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_base(locate(str(tmp_path)))
    assert locate("owner/name", revision="abc") == Source("owner/name", "owner/name", "abc")
    assert locate(zoo("bert")).folder == Path(zoo("bert"))


def test_code_of_a_model_is_not_run_unasked(tmp_path: Path, zoo: Zoo) -> None:
    folder, ran = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(zoo("bert"), folder)
    config = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    (folder / "config.json").write_text(
        json.dumps({**config, "model_type": "own", "auto_map": classes})
    )
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    with pytest.raises(
        ModelError, match=r"; read it, and set model\.trust_remote_code to true if "
    ):
        load_base(locate(str(folder)), head=Head(3, "mean"))
    assert not ran.exists()


def test_a_pooled_classifier_takes_the_backbones_width(zoo: Zoo) -> None:
    backbone = AutoModel.from_pretrained(zoo("llama"))
    made = PooledClassifier(backbone, pooling="mean", normalize=False, num_labels=5)
    assert made.classifier.weight.shape == (5, 64)
