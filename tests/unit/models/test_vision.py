"""Image models as they were asked for; what they read of an image are its processor's pixels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, ViTConfig
from transformers.models.efficientnet.image_processing_pil_efficientnet import (
    EfficientNetImageProcessorPil,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from atoll.data.images import open_image
from atoll.errors import DataError, ModelError
from atoll.models.classification import class_terms
from atoll.models.images import Processor, load_processor, pixels_of
from atoll.models.locate import Source, locate
from atoll.models.vision import image_classification, load_vision
from tests.support.gallery import Gallery
from tests.support.images import painted
from tests.support.models import Zoo

HERE = Source("somewhere", "somewhere")


def shown(*, size: tuple[int, int] = (23, 31), seed: int = 3) -> Any:
    return Image.fromarray(painted("green", seed, size=size))


def test_the_models_own_processor_makes_its_inputs(gallery: Gallery) -> None:
    base = load_vision(locate(gallery("vit")), num_labels=3)
    assert base.processor is not None
    plain = AutoImageProcessor.from_pretrained(gallery("vit"), backend="pil")
    pixels = pixels_of(base.processor, base.source)
    images = [shown(), shown(size=(9, 40), seed=4)]
    packed = [pixels.pack(image) for image in images]
    assert all(one.dtype == np.uint8 and one.shape == (3, 16, 16) for one in packed)
    found = pixels.unpack([packed[0], None, packed[1]])
    expected = plain(images=images, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(found[[0, 2]], expected, rtol=0, atol=2e-6)
    assert torch.isfinite(found).all()


def test_a_grey_model_gets_grey_images(gallery: Gallery) -> None:
    base = load_vision(locate(gallery("vit-grey")), num_labels=2)
    assert base.processor is not None
    pixels = pixels_of(base.processor, base.source)
    assert pixels.pack(shown()).shape == (1, 16, 16)
    rgb = load_vision(locate(gallery("vit")), num_labels=2).processor
    assert rgb is not None
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    packed = pixels_of(rgb, HERE).pack(grey)
    assert np.array_equal(packed, np.stack([np.asarray(grey)] * 3))


def test_a_model_without_a_processor_gets_one_of_its_own_size(gallery: Gallery) -> None:
    base = load_vision(locate(gallery("vit-bare")), num_labels=3)
    assert base.processor is not None
    assert base.processor.made
    pixels = pixels_of(base.processor, base.source)
    white = pixels.unpack([pixels.pack(Image.new("L", (40, 20), 255))])
    torch.testing.assert_close(white, torch.ones(1, 3, 16, 16))
    black = pixels.unpack([pixels.pack(Image.new("L", (40, 20), 0))])
    torch.testing.assert_close(black, -torch.ones(1, 3, 16, 16))
    oblong = load_processor(base.source, ViTConfig(image_size=[8, 12]))
    assert pixels_of(oblong, HERE).pack(shown()).shape == (3, 8, 12)


@pytest.mark.parametrize("processor", [
    EfficientNetImageProcessorPil(size={"height": 20, "width": 20}, rescale_offset=True),
    ViTImageProcessorPil(size={"height": 20, "width": 20}, do_normalize=False),
    ViTImageProcessorPil(size={"height": 20, "width": 20}, do_rescale=False, do_normalize=False),
    ViTImageProcessorPil(size={"height": 20, "width": 20}, rescale_factor=1 / 127.5),
    ViTImageProcessorPil(size={"height": 20, "width": 20}, image_mean=0.3, image_std=0.7),
], ids=["offset", "scaled", "raw", "factor", "one mean"])  # fmt: skip
def test_other_arithmetic(processor: Any) -> None:
    """What three numbers cannot follow is kept as it was made."""
    pixels = pixels_of(Processor(processor, 3), HERE)
    expected = processor(images=shown(), return_tensors="pt")["pixel_values"].float()
    torch.testing.assert_close(pixels.unpack([pixels.pack(shown())]), expected, rtol=0, atol=1e-5)


def test_a_processor_that_does_not_fit_is_refused(gallery: Gallery) -> None:
    one = ViTImageProcessorPil(size={"height": 16, "width": 16}, image_mean=[0.5], image_std=[0.5])
    with pytest.raises(ModelError, match="does not take images of 3 channels"):
        pixels_of(Processor(one, 3), HERE)
    own = ViTImageProcessorPil(do_resize=False)
    with pytest.raises(DataError, match=r"different sizes, \(3, 9, 40\) beside \(3, 37, 53\)"):
        pixels_of(Processor(own, 3), HERE).pack(shown(size=(9, 40)))


def test_a_checkpoint_with_other_labels_keeps_its_backbone(gallery: Gallery) -> None:
    base = load_vision(locate(gallery("vit")), num_labels=3, dtype="float64", seed=5)
    plain = AutoModelForImageClassification.from_pretrained(gallery("vit"), dtype=torch.float64)
    ours, theirs = base.backbone.state_dict(), plain.state_dict()
    for name, value in theirs.items():
        if not name.startswith("classifier."):
            torch.testing.assert_close(ours[name], value, rtol=0, atol=0)
    assert ours["classifier.weight"].shape == (3, 32)
    assert (base.head, base.fresh, base.tokenizer) == ("classifier", (), None)
    again = load_vision(locate(gallery("vit")), num_labels=3, dtype="float64", seed=5)
    assert torch.equal(again.backbone.state_dict()["classifier.weight"], ours["classifier.weight"])
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_a_nested_classifier_is_found(gallery: Gallery) -> None:
    base = load_vision(locate(gallery("resnet")), num_labels=4)
    assert base.head == "classifier.1"
    assert base.model.get_submodule(base.head).out_features == 4


def test_pixels_follow_the_precision_of_the_weights(gallery: Gallery) -> None:
    for dtype in ("bfloat16", "float64"):
        base = load_vision(locate(gallery("vit")), num_labels=3, dtype=dtype)
        logits = base.model(pixel_values=torch.zeros(2, 3, 16, 16)).logits
        assert str(logits.dtype) == f"torch.{dtype}"


def test_models_that_do_not_fit_are_refused(gallery: Gallery, zoo: Zoo, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded as AutoModelForImageClassification"):
        load_vision(locate(zoo("bert")), num_labels=3)
    shutil.copytree(gallery("vit"), tmp_path / "vit")
    config = json.loads((tmp_path / "vit" / "config.json").read_text())
    (tmp_path / "vit" / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    with pytest.raises(ModelError, match="has another shape among its weights"):
        load_vision(locate(str(tmp_path / "vit")), num_labels=3)
    shutil.copytree(gallery("resnet"), tmp_path / "resnet")
    (tmp_path / "resnet" / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"no preprocessor_config\.json, and .* no image_size"):
        load_vision(locate(str(tmp_path / "resnet")), num_labels=3)
    (tmp_path / "resnet" / "preprocessor_config.json").write_text("{broken")
    with pytest.raises(ModelError, match="cannot be loaded as AutoImageProcessor"):
        load_vision(locate(str(tmp_path / "resnet")), num_labels=3)


def test_rows_as_examples_and_batches(gallery: Gallery) -> None:
    base = load_vision(locate(gallery("vit")), num_labels=3)
    assert base.processor is not None
    task = image_classification(
        pixels_of(base.processor, base.source),
        opened=open_image,
        labels=("blue", "green", "red"),
        terms=class_terms(3, weights="balanced-per-client"),
    )
    rows = [{"image": painted(c, 1), "label": c} for c in ("red", "green", "red")]
    examples = task.encode([*rows, {"image": painted("blue", 2)}])
    assert [int(one.target[0]) for one in examples] == [2, 1, 2, -100]
    assert [len(one) for one in examples] == [0] * 4
    assert all(one.nbytes < 3 * 16 * 16 + 64 for one in examples), "more than 8 bits a pixel"
    batch = task.collate([examples[0], None])
    assert (batch.length, batch.views, batch.target.tolist()) == (None, 1, [[2], [-100]])
    assert task.terms(examples[:3])["weight"].tolist() == pytest.approx([0, 1.5, 0.75])
    assert task.encode([]) == []


def test_the_loss_is_the_models_own(gallery: Gallery) -> None:
    """transformers' ViTForImageClassification(labels=…) over unpadded images."""
    base = load_vision(locate(gallery("vit")), num_labels=3, dtype="float64")
    assert base.processor is not None
    task = image_classification(
        pixels_of(base.processor, base.source), opened=open_image,
        labels=("blue", "green", "red"), terms=class_terms(3),
    )  # fmt: skip
    rows = [{"image": painted(c, i), "label": c} for i, c in enumerate(("red", "green", "red"))]
    batch = task.collate([*task.encode(rows), None])
    losses = task.losses(base.model(**batch.inputs).logits, batch, {})
    plain = AutoImageProcessor.from_pretrained(gallery("vit"), backend="pil")
    inputs = plain(images=[Image.fromarray(row["image"]) for row in rows], return_tensors="pt")
    expected = base.backbone(
        pixel_values=inputs["pixel_values"].double(), labels=torch.tensor([2, 1, 2])
    ).loss
    torch.testing.assert_close(losses[:3].mean(), expected, rtol=1e-5, atol=1e-6)
    assert losses[3] == 0
