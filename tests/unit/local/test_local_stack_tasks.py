"""Uneven clients in one forward pass give what each gives alone, for tasks of two inputs a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from atoll.data.images import open_image
from atoll.models.classification import class_terms
from atoll.models.contrast import Contrast
from atoll.models.dual import load_dual
from atoll.models.embedding import Vectors, embedding, load_encoder
from atoll.models.image_text import image_text
from atoll.models.images import pixels_of
from atoll.models.locate import locate
from atoll.models.vision import image_classification, load_vision
from tests.support.federation import Site, distance, moved, stir
from tests.support.gallery import Gallery
from tests.support.images import COLOURS
from tests.support.models import Zoo
from tests.support.task_sites import image_rows, pair_rows, seen_rows, site_of

LORA = {"r": 3, "lora_dropout": 0.2}
HARD = {"gradient_accumulation_steps": 2, "max_grad_norm": 0.5, "weight_decay": 0.01}
SGD = {**HARD, "optimizer": "sgd", "momentum": 0.5, "learning_rate": 0.05}
ADAMW = {**HARD, "optimizer": "adamw", "learning_rate": 1e-3, "adam_epsilon": 1e-6}


def vit(zoo: Zoo, gallery: Gallery, *, train: dict[str, object], kind: str = "vit") -> Site:
    base = load_vision(locate(gallery(kind)), num_labels=3, dtype="float64")
    assert base.processor is not None
    labels = sorted(COLOURS)
    task = image_classification(
        pixels_of(base.processor, base.source), opened=open_image, labels=labels,
        terms=class_terms(3, weights="balanced-per-client", logit_adjustment=0.5),
    )  # fmt: skip
    adapter = LORA if kind == "vit" else {"method": "none"}
    return site_of(base, task, image_rows(), adapter=adapter, train=train)


def encoder(zoo: Zoo, gallery: Gallery, *, train: dict[str, object], views: int = 2) -> Site:
    vectors = Vectors(pooling="mean", learned=True, temperature=0.3)
    base = load_encoder(locate(zoo("bert")), vectors, dtype="float64")
    task = embedding(base.tokenizer, Contrast(None, views == 2), max_length=24, views=views)
    rows = pair_rows(negatives=views == 3)
    return site_of(base, task, rows, adapter=LORA, train=train)


def decoder(zoo: Zoo, gallery: Gallery, *, train: dict[str, object]) -> Site:
    base = load_encoder(locate(zoo("llama")), Vectors(pooling="last"), dtype="float64")
    task = embedding(base.tokenizer, Contrast(0.2, False), max_length=32)
    return site_of(base, task, pair_rows(), adapter=LORA, train=train)


def dual(zoo: Zoo, gallery: Gallery, *, train: dict[str, object], kind: str = "clip") -> Site:
    base = load_dual(locate(gallery(kind)), Vectors(learned=True), dtype="float64")
    assert base.processor is not None
    pixels = pixels_of(base.processor, base.source)
    task = image_text(base, pixels, Contrast(None, True), opened=open_image, max_length=12)
    return site_of(base, task, seen_rows(), adapter=LORA, train=train)


SITES: dict[str, Callable[..., Site]] = {
    "vit": vit,
    "bert-pairs": encoder,
    "bert-negatives": lambda zoo, gallery, train: encoder(zoo, gallery, train=train, views=3),
    "llama-last-token": decoder,
    "clip": dual,
    "siglip": lambda zoo, gallery, train: dual(zoo, gallery, train=train, kind="siglip"),
}


def compare(there: Site, tolerance: float) -> None:
    stacked, failed = there.train(group_size=len(there.clients))
    alone, failed_alone = there.train(group_size=1)
    assert not failed
    assert not failed_alone
    for client, one in alone.items():
        assert stacked[client].steps == one.steps
        assert stacked[client].loss == pytest.approx(one.loss, rel=tolerance, abs=tolerance)
        assert distance(moved(stacked[client]), moved(one)) < tolerance, client
    # They trained; a client of one pair has nothing to tell it from.
    assert all(any(v.any() for v in moved(one).values()) for one in list(alone.values())[:4])
    assert len({one.steps for one in alone.values()}) > 1, "the clients are not uneven"


@pytest.mark.parametrize("train", [SGD, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize("name", SITES)
def test_stacked_is_sequential(name: str, train: dict[str, object], zoo: Zoo,
                               gallery: Gallery) -> None:  # fmt: skip
    there = SITES[name](zoo, gallery, train=train)
    assert there.built.alone is None
    compare(replace(there, values=stir(there.values, 1, std=0.02)), 1e-8)


def test_a_model_with_batch_norm_trains_one_client_at_a_time(zoo: Zoo, gallery: Gallery) -> None:
    there = vit(zoo, gallery, train=SGD, kind="resnet")
    assert there.built.alone is not None
    assert "normalises over the batch" in there.built.alone
