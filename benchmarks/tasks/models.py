"""Small models that start from nothing, and a ViT that has seen other images than its clients'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    BertConfig,
    BertForMaskedLM,
    CLIPConfig,
    CLIPModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
)

from benchmarks.common import SCRATCH
from benchmarks.tasks.sets import read_rows

__all__ = ["bert", "clip", "llama", "vit_digits", "vit_seen"]

WORDS = 1000
SPREAD = 0.1
"""Deviation of fresh weights: about 1/√d. The usual 0.02 is meant for d = 768 and more."""
EPOCHS = 6


def _saved(name: str, make: Callable[[], list[PreTrainedModel | PreTrainedTokenizerFast]]) -> str:
    """The folder of a model; made once, from seed 0."""
    folder = SCRATCH / "tasks" / name
    if not (folder / "done").is_file():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for part in make():
                part.save_pretrained(folder)
        (folder / "done").touch()
    return str(folder)


def llama(data: Path) -> str:
    """0.4 M parameters: 3 layers, d = 96; 1,000 pieces of words from the inaugural addresses."""
    return _saved("llama", lambda: [_llama(), _tokenizer(_texts(data / "inaugural"))])


def _llama() -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=96, intermediate_size=256, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=128,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, pad_token_id=1,
        initializer_range=SPREAD,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def bert(data: Path) -> str:
    """0.4 M parameters: 3 layers, d = 96; 1,000 pieces of words from the roles of Shakespeare."""
    return _saved(
        "bert", lambda: [_bert(), _tokenizer(_texts(data / "shakespeare_roles"), masks=True)]
    )


def _bert() -> PreTrainedModel:
    return BertForMaskedLM(
        BertConfig(
            vocab_size=WORDS, hidden_size=96, intermediate_size=256, num_hidden_layers=3,
            num_attention_heads=4, max_position_embeddings=128, pad_token_id=1,
            initializer_range=SPREAD,
        )
    )  # fmt: skip


def _tokenizer(
    texts: Sequence[str], *, ends: bool = False, masks: bool = False
) -> PreTrainedTokenizerFast:
    """Byte pairs of a text that none of the clients has."""
    specials = ["<|end|>", "<|pad|>", *(["<|mask|>"] if masks else [])]
    found = Tokenizer(BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=WORDS, special_tokens=specials, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    found.train_from_iterator(texts, trainer)
    if ends:
        found.post_processor = processors.TemplateProcessing(
            single="$A <|end|>", special_tokens=[("<|end|>", 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=found, eos_token="<|end|>", pad_token="<|pad|>",
        mask_token="<|mask|>" if masks else None, model_max_length=128,
    )  # fmt: skip


def _texts(folder: Path) -> list[str]:
    return [row["text"] for row in read_rows(folder / "train.jsonl.gz")]


def clip(data: Path) -> str:
    """0.5 M parameters: two encoders of 3 layers, d = 64, images of 48 × 48 in patches of 8."""
    return _saved("clip", lambda: [_clip(), _tokenizer(_texts(data / "inaugural"), ends=True)])


def _clip() -> PreTrainedModel:
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
            "num_attention_heads": 4}  # fmt: skip
    return CLIPModel(
        CLIPConfig(
            text_config={**size, "vocab_size": WORDS, "max_position_embeddings": 32,
                         "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1},
            vision_config={**size, "image_size": 48, "patch_size": 8},
            projection_dim=64,
        )
    )  # fmt: skip


def _vit(size: int, patch: int, labels: int = 10) -> PreTrainedModel:
    return ViTForImageClassification(
        ViTConfig(
            hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=128,
            image_size=size, patch_size=patch, num_channels=1, num_labels=labels,
            initializer_range=SPREAD,
        )
    )  # fmt: skip


def vit_digits(data: Path) -> str:
    """0.1 M parameters: 4 layers, d = 64, images of 8 × 8 in patches of 2."""
    return _saved("vit-digits", lambda: [_vit(8, 2)])


def vit_seen(data: Path) -> str:
    """0.1 M parameters, images of 28 × 28 in patches of 4; has learnt mnist10k in one place."""
    return _saved("vit-mnist10k", lambda: [_taught(_vit(28, 4), data)])


def _taught(model: PreTrainedModel, data: Path) -> PreTrainedModel:
    """The model after some passes over mnist10k, as any pre-training would do it."""
    stored = np.load(data / "mnist10k" / "data.npz")
    pixels = torch.from_numpy(stored["x_train"]).float()[:, None] / 127.5 - 1
    labels = torch.from_numpy(stored["y_train"]).long()
    steps = EPOCHS * (len(labels) // 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    model.train()
    for step in range(steps):
        if step % (len(labels) // 64) == 0:
            order = torch.randperm(len(labels))
        rows = order[(step * 64) % (len(labels) - 63) :][:64]
        loss = model(pixel_values=pixels[rows], labels=labels[rows]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    print(f"ViT on mnist10k: loss {loss.item():.3f} after {steps} steps", flush=True)
    return model.eval()
