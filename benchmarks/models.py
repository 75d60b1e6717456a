"""Models that benchmarks train: a tiny BERT in a folder, MiniLM, a LLaMA from its config."""

from __future__ import annotations

import functools
from pathlib import Path
from types import SimpleNamespace

import torch
from transformers import AutoConfig, AutoModelForCausalLM, BertConfig, BertModel, BertTokenizerFast

from atoll.models.base import Base, Head, load_base
from atoll.models.locate import Source, locate
from benchmarks.common import SCRATCH

__all__ = ["NUM_LABELS", "VOCABULARY", "llama_135m", "minilm", "tiny_bert", "tiny_folder"]

NUM_LABELS = 100
VOCABULARY = 2000


def tiny_folder() -> Path:
    """The folder of a 4-layer encoder, d = 128, vocabulary 2,000, with random weights."""
    folder = SCRATCH / "tiny-bert"
    if (folder / "done").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [f"w{number}" for number in range(VOCABULARY - len(special))]
    (folder / "vocab.txt").write_text("\n".join([*special, *words]) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=128,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    (folder / "done").touch()
    return folder


@functools.cache
def tiny_bert() -> Base:
    """The tiny encoder with mean pooling and a linear head."""
    return load_base(locate(str(tiny_folder())), head=Head(NUM_LABELS, "mean", normalize=False))


@functools.cache
def minilm() -> Base:
    """all-MiniLM-L6-v2 with mean pooling and a linear head."""
    return load_base(locate("builtin:minilm"), head=Head(NUM_LABELS, "mean", normalize=False))


@functools.cache
def llama_135m(small: bool = False) -> Base:
    """A LLaMA of SmolLM-135M's shape with random weights (`small`: two thin layers, to try out)."""
    config = AutoConfig.for_model(
        "llama",
        vocab_size=512 if small else 49152,
        hidden_size=96 if small else 576,
        intermediate_size=256 if small else 1536,
        num_hidden_layers=2 if small else 30,
        num_attention_heads=3 if small else 9,
        num_key_value_heads=1 if small else 3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        use_cache=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    model.requires_grad_(False).eval()
    tokenizer = SimpleNamespace(pad_token_id=0, eos_token_id=0)
    return Base(model, model, "", tokenizer, Source("", "llama"), "AutoModelForCausalLM", None)
