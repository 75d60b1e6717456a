"""Tiny models that see: image classifiers and encoders of images and texts, saved as users save."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetForImageClassification,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from tests.support.models import stir_model, word_pieces

__all__ = ["Gallery"]

Made = tuple[PreTrainedModel, list[object]]


class Gallery:
    """Folders of models; `gallery("vit")` is a path."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, kind: str) -> str:
        folder = self.root / kind
        if not folder.exists():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(11)
                model, others = _MAKERS[kind]()
                stir_model(model)
            model.save_pretrained(folder)
            for other in others:
                other.save_pretrained(folder)  # type: ignore[attr-defined]
        return str(folder)


def _vit_config(labels: int = 7, channels: int = 3) -> ViTConfig:
    return ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        image_size=16, patch_size=8, num_labels=labels, num_channels=channels,
    )  # fmt: skip


def _vit() -> Made:
    """With a classifier for other labels, as a fine-tuned checkpoint has."""
    size = {"height": 16, "width": 16}
    processor = ViTImageProcessorPil(size=size, image_mean=[0.4, 0.5, 0.6], image_std=[0.2] * 3)
    return ViTForImageClassification(_vit_config()), [processor]


def _vit_bare() -> Made:
    """Without an image processor."""
    return ViTForImageClassification(_vit_config(labels=3)), []


def _vit_grey() -> Made:
    size = {"height": 16, "width": 16}
    processor = ViTImageProcessorPil(size=size, image_mean=[0.5], image_std=[0.5])
    return ViTForImageClassification(_vit_config(channels=1)), [processor]


def _resnet() -> Made:
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=7
    )
    return ResNetForImageClassification(config), [
        ViTImageProcessorPil(size={"height": 16, "width": 16})
    ]


def _words(length: int, tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tokenizer.model_max_length = length
    tokenizer.eos_token = "[SEP]"
    return tokenizer


def _clip() -> Made:
    tokenizer = _words(16, word_pieces())
    sizes = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }  # fmt: skip
    config = CLIPConfig(
        text_config={
            **sizes, "vocab_size": len(tokenizer), "max_position_embeddings": 16,
            "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.cls_token_id,
            "pad_token_id": tokenizer.pad_token_id, "projection_dim": 24,
        },
        vision_config={**sizes, "image_size": 16, "patch_size": 8, "projection_dim": 24},
        projection_dim=24,
    )  # fmt: skip
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    )
    return CLIPModel(config), [tokenizer, processor]


def _siglip() -> Made:
    """Its texts have no mask, and are read at their last place."""
    tokenizer = _words(12, word_pieces())
    sizes = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }  # fmt: skip
    config = SiglipConfig(
        text_config={
            **sizes, "vocab_size": len(tokenizer), "max_position_embeddings": 12,
            "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.cls_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={**sizes, "image_size": 16, "patch_size": 8},
    )  # fmt: skip
    processor = SiglipImageProcessorPil(size={"height": 16, "width": 16})
    return SiglipModel(config), [tokenizer, processor]


_MAKERS: dict[str, Callable[[], Made]] = {
    "clip": _clip,
    "resnet": _resnet,
    "siglip": _siglip,
    "vit": _vit,
    "vit-bare": _vit_bare,
    "vit-grey": _vit_grey,
}
