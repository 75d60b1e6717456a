"""Vectors of texts, and of images and texts, as the models' own classes give them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, CLIPModel, T5Config, T5Model

from atoll.data.images import open_image
from atoll.errors import DataError, ModelError
from atoll.models.base import Base
from atoll.models.contrast import Contrast, vectors_of
from atoll.models.dual import DualEncoder, load_dual, own_temperature, text_length
from atoll.models.embedding import TextEncoder, Vectors, embedding, load_encoder
from atoll.models.image_text import image_text
from atoll.models.images import pixels_of
from atoll.models.locate import locate
from tests.support.gallery import Gallery
from tests.support.images import painted
from tests.support.models import Zoo, word_pieces

TEXTS = ["reef tide coral", "boat", "sun moon star wind"]


def read(path: str, text: str) -> tuple[Any, Any]:
    batch = AutoTokenizer.from_pretrained(path)(text, return_tensors="pt")
    return AutoModel.from_pretrained(path, dtype=torch.float64).eval(), batch


@pytest.mark.parametrize(("kind", "pooling", "place"), [
    ("bert", "mean", None), ("bert", "cls", 0), ("llama", "last", -1), ("gpt2", "mean", None),
])  # fmt: skip
def test_vectors_are_pooled_token_vectors(
    kind: str, pooling: Any, place: int | None, zoo: Zoo
) -> None:
    vectors = Vectors(pooling=pooling, normalize=kind == "bert", learned=True, temperature=0.2)
    base = load_encoder(locate(zoo(kind)), vectors, dtype="float64")
    task = embedding(base.tokenizer, Contrast(None, False), max_length=48)
    batch = task.collate(task.encode([{"anchor": a, "positive": b} for a in TEXTS for b in TEXTS]))
    with torch.no_grad():
        outputs = base.model(**batch.inputs)
    assert outputs.shape[0] == 18
    torch.testing.assert_close(outputs[:, -1].exp(), torch.full((18,), 5.0, dtype=torch.float64))
    found = vectors_of(outputs, batch, learned=True)
    said = [text for a in TEXTS for b in TEXTS for text in (a, b)]
    for ours, text in zip(found.flatten(0, 1), said, strict=True):
        model, row = read(zoo(kind), text)
        with torch.no_grad():
            hidden = model(**row).last_hidden_state[0]
        vector = hidden.mean(0) if place is None else hidden[place]
        torch.testing.assert_close(ours, vector / vector.norm() if kind == "bert" else vector)


def test_rows_of_one_text_are_for_prediction(zoo: Zoo) -> None:
    base = load_encoder(locate(zoo("bert")), Vectors())
    assert (base.pooling, base.normalize, base.head) == ("mean", True, None)
    task = embedding(base.tokenizer, Contrast(0.05, False), max_length=5)
    examples = task.encode([{"text": TEXTS[0]}, {"anchor": TEXTS[2]}])
    batch = task.collate([*examples, None])
    assert (batch.views, batch.target.shape, batch.inputs["input_ids"].shape) == (1, (3, 1), (3, 5))
    assert [one.over for one in examples] == [(), (6,)]
    assert task.encode([]) == []
    with pytest.raises(DataError, match="has neither a text nor an anchor"):
        task.encode([{"image": "a.png"}])


def test_rows_are_views_of_one_length(zoo: Zoo) -> None:
    base = load_encoder(locate(zoo("bert")), Vectors())
    task = embedding(base.tokenizer, Contrast(0.05, False), max_length=48, views=3)
    row = {"anchor": "boat", "positive": "reef tide coral", "negative": "sun moon"}
    examples = task.encode([row, {**row, "anchor": "reef tide coral"}])
    assert [len(one) for one in examples] == [5, 5]
    batch = task.collate([examples[0], None])
    assert (batch.views, batch.length) == (3, 5)
    assert batch.inputs["attention_mask"].sum(1).tolist() == [3, 5, 4, 1, 1, 1]
    assert batch.target[1].tolist() == [-100] * 3
    # The same text has the same key, whatever column it stands in.
    assert examples[1].target[0] == examples[0].target[1] != examples[0].target[2]
    cut = examples[0].cut(3)
    assert len(task.collate([cut]).inputs["input_ids"][0]) == 3


def modules(folder: Path, kinds: list[str], pooling: dict[str, Any]) -> str:
    """A BERT with sentence-transformers' files beside it."""
    listed = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"a.b.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return str(folder)


def test_sentence_encoders_are_pooled_as_they_were_trained(zoo: Zoo, tmp_path: Path) -> None:
    model, tokenizer = AutoModel.from_pretrained(zoo("bert")), word_pieces()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    mean, two = {"pooling_mode": "mean"}, {"pooling_mode": ["mean", "max"]}
    path = modules(tmp_path, ["Transformer", "Pooling", "Normalize"], {"pooling_mode": "lasttoken"})
    base = load_encoder(locate(path), Vectors())
    assert (base.pooling, base.normalize) == ("last", True)
    assert not load_encoder(locate(path), Vectors(normalize=False)).normalize
    path = modules(tmp_path, ["Transformer", "Pooling"], mean)
    assert not load_encoder(locate(path), Vectors()).normalize
    for kinds, pooling, says in (
        (["Transformer", "Pooling", "Dense"], mean, "makes its vectors with Dense"),
        (["Transformer", "Pooling"], two, "with pooling mean and max"),
    ):
        path = modules(tmp_path, kinds, pooling)
        with pytest.raises(ModelError, match=says):
            load_encoder(locate(path), Vectors())
        assert load_encoder(locate(path), Vectors(pooling="cls")).pooling == "cls"
    with pytest.raises(ModelError, match=r"model\.pooling is model"):
        load_encoder(locate(path), Vectors(pooling="model"))


def test_an_encoder_with_a_decoder_is_refused(tmp_path: Path) -> None:
    config = T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5Model(config).save_pretrained(tmp_path)
    word_pieces().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has an encoder and a decoder"):
        load_encoder(locate(str(tmp_path)), Vectors())


def clip(gallery: Gallery, kind: str = "clip", **options: Any) -> tuple[Base, Any]:
    base = load_dual(locate(gallery(kind)), Vectors(**options), dtype="float64")
    assert base.processor is not None
    temperature = None if options.get("learned") else own_temperature(base.backbone)
    task = image_text(
        base, pixels_of(base.processor, base.source), Contrast(temperature, True),
        opened=open_image, max_length=12,
    )  # fmt: skip
    return base, task


def test_one_clients_batch_has_clips_own_loss_and_gradient(gallery: Gallery) -> None:
    """transformers' CLIPModel(return_loss=True), its learned scale included."""
    rows = [{"image": painted(c, i), "text": TEXTS[i % 3] + " reef" * (i // 3)}
            for i, c in enumerate(["red", "green", "blue", "red", "green"])]  # fmt: skip
    base, task = clip(gallery, learned=True)
    batch = task.collate(task.encode(rows))
    theirs = CLIPModel.from_pretrained(gallery("clip"), dtype=torch.float64).eval()
    expected = theirs(**batch.inputs, return_loss=True).loss
    base.model.requires_grad_(True)
    found = task.losses(base.model(**batch.inputs), batch, {}).mean()
    torch.testing.assert_close(found, expected)
    found.backward()
    expected.backward()
    assert isinstance(base.model, DualEncoder)
    assert base.model.log_scale is not None
    ours = base.model.log_scale.layer.weight.grad
    torch.testing.assert_close(ours.view(()), theirs.logit_scale.grad)
    mine = dict(base.backbone.named_parameters())
    for name, value in theirs.named_parameters():
        if name != "logit_scale" and value.grad is not None:
            torch.testing.assert_close(mine[name].grad, value.grad, rtol=1e-6, atol=1e-9)
    frozen, task = clip(gallery)
    torch.testing.assert_close(task.losses(frozen.model(**batch.inputs), batch, {}).mean(), found)
    assert own_temperature(frozen.backbone) == pytest.approx(math.exp(-2.6592))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_images_and_texts_have_the_models_own_features(kind: str, gallery: Gallery) -> None:
    base, task = clip(gallery, kind)
    rows = [{"image": painted("red", 1)}, {"text": TEXTS[0]},
            {"image": painted("blue", 2), "text": TEXTS[1]}]  # fmt: skip
    model = AutoModel.from_pretrained(gallery(kind), dtype=torch.float64).eval()
    whole = task.collate(task.encode(rows))
    with torch.no_grad():
        found = vectors_of(base.model(**whole.inputs), whole, learned=False)
        images = model.get_image_features(pixel_values=whole.inputs["pixel_values"].double())
        words = base.tokenizer(
            [row.get("text", "") for row in rows], padding="max_length", max_length=12,
            return_tensors="pt",
        )  # fmt: skip
        names = ("input_ids", "attention_mask")[: 1 + (kind == "clip")]
        texts = model.get_text_features(**{name: words[name] for name in names})
    for row, view, features in ((0, 0, images), (2, 0, images), (1, 1, texts), (2, 1, texts)):
        vector = features.pooler_output[row]
        torch.testing.assert_close(found[row, view], vector / vector.norm())
    for place, missing in ((0, "input_ids"), (1, "pixel_values")):
        alone = task.collate(task.encode(rows[place : place + 1]))
        assert missing not in alone.inputs
        with torch.no_grad():
            ours = vectors_of(base.model(**alone.inputs), alone, learned=False)
        torch.testing.assert_close(ours[0, place], found[place, place])
    assert whole.target[0, 1] == whole.target[1, 0] == -100
    assert (whole.length, whole.views) == (None, 1)


def test_a_model_that_masks_no_padding_reads_texts_of_its_full_length(gallery: Gallery) -> None:
    base, task = clip(gallery, "siglip")
    assert text_length(base, 5) == 12
    batch = task.collate(task.encode([{"image": painted("red", 1), "text": "reef"}]))
    assert batch.inputs["input_ids"].shape == (1, 12)
    assert "attention_mask" not in batch.inputs
    clips, _ = clip(gallery)
    assert text_length(clips, 5) == 5


def test_models_that_do_not_fit_are_refused(zoo: Zoo, gallery: Gallery) -> None:
    with pytest.raises(ModelError, match="has no encoders of images and of texts"):
        load_dual(locate(zoo("bert-with-pooler")), Vectors())
    with pytest.raises(ModelError, match="and rows without images do not use it; give rows of"):
        load_encoder(locate(gallery("clip")), Vectors())
    _, task = clip(gallery)
    with pytest.raises(DataError, match="has neither an image nor a text"):
        task.encode([{"anchor": "reef"}])


def test_a_fixed_temperature_leaves_nothing_to_learn(zoo: Zoo) -> None:
    base = load_encoder(locate(zoo("bert")), Vectors())
    assert isinstance(base.model, TextEncoder)
    assert base.model.log_scale is None
    learned = load_encoder(locate(zoo("bert")), Vectors(learned=True))
    assert learned.head == "log_scale.layer"
    weight = learned.model.get_parameter("log_scale.layer.weight")
    assert float(weight) == pytest.approx(math.log(20))
