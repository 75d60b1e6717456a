"""A small causal model over two thousand words, and clients whose rows are such words at random."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from atoll.audit.trial import Trial, trial_of
from atoll.config import load
from atoll.experiment.setup import Setup, prepare
from atoll.local.bench import model_values
from atoll.tree import Tree

__all__ = ["CLIENTS", "begun_trial", "begun_values", "world", "write_world"]

WORDS = [f"w{number}" for number in range(1999)]
CLIENTS = ("ada", "bob", "cy", "dee")


def write_world(folder: Path, *, words: int = 15, rows: int = 12, **sections: Any) -> Path:
    """Model, rows and experiment file in `folder`; the file's path."""
    _model(folder / "model")
    draw = random.Random(0)
    for client in CLIENTS:
        (folder / "data" / client).mkdir(parents=True)
        for split in ("train", "test"):
            texts = [" ".join(draw.sample(WORDS, words)) for _ in range(rows)]
            lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
            (folder / "data" / client / f"{split}.jsonl").write_text(lines)
    written: dict[str, Mapping[str, Any] | str] = {
        "model": {"name_or_path": str(folder / "model"), "task": "causal-lm"},
        "data": {"path": str(folder / "data"), "max_length": 32},
        "adapter": {"r": 8, "target_modules": ["q_proj", "v_proj"]},
        "train": {"optimizer": "sgd", "learning_rate": 0.1, "max_grad_norm": None, "device": "cpu",
                  "per_device_train_batch_size": 4, "group_size": 1},
        "federation": {"num_rounds": 2},
        "evaluate": {"baselines": []},
        "output_dir": str(folder / "run"),
    }  # fmt: skip
    for name, values in sections.items():
        written[name] = {**written.get(name, {}), **values}  # type: ignore[dict-item]
    (folder / "experiment.yaml").write_text(yaml.safe_dump(written))
    return folder / "experiment.yaml"


def world(folder: Path, **sections: Any) -> Setup:
    """The experiment, ready to run."""
    return prepare(load(write_world(folder, **sections)), note=lambda text: None)


def begun_values(setup: Setup) -> Tree:
    """Values of a LoRA that has trained a little, so that no B is zero."""
    draw = torch.Generator().manual_seed(1)
    return {
        name: value + 0.02 * torch.randn(value.shape, generator=draw)
        for name, value in model_values(setup.start.server).items()
    }


def _model(folder: Path) -> None:
    vocabulary = {**{word: place for place, word in enumerate(WORDS)}, "</s>": len(WORDS)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", model_max_length=64
    ).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=64,
        bos_token_id=len(WORDS), eos_token_id=len(WORDS),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)


def begun_trial(folder: Path, *, rows: int) -> Trial:
    """Clients with so many rows each, after a LoRA that has trained a little."""
    setup = world(folder)
    own = {client: setup.bench.examples(client, "train")[:rows] for client in CLIENTS}
    found = trial_of(setup, setup.loaded, begun_values(setup), own)
    assert found is not None
    return found
