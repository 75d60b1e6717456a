"""Experiments that a plan is held against: small enough to run, unlike enough to tell."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.common import SCRATCH

__all__ = ["Case", "cases"]

RECIPES = Path(__file__).parents[2] / "atoll" / "recipes"
WORDS = 8000


@dataclass(frozen=True)
class Case:
    """An experiment file and what is set on the command line."""

    name: str
    file: Path
    values: tuple[str, ...]


def cases(data: Path) -> list[Case]:
    """`data`: the folder that holds trec, banking77 and gsm8k, each as train.jsonl.gz."""
    quickstart, classify = RECIPES / "quickstart.yaml", RECIPES / "classify.yaml"
    few = ("federation.num_rounds=2", "evaluate.every=2", "data.partition.num_clients=6",
           "federation.clients_per_round=3")  # fmt: skip
    dirichlet = "data.partition={name: dirichlet, alpha: 0.5, num_clients: 8}"
    lines = f"data.path={_gsm8k(data)}"
    return [
        Case("quickstart, fewer clients", quickstart, few),
        Case("quickstart, one client a pass", quickstart, (*few, "train.group_size=1")),
        Case(
            "trec, classify recipe", classify,
            (f"data.path={data / 'trec'}", dirichlet, "federation.num_rounds=2",
             "adapter.refit_every=2", "evaluate.every=2"),
        ),
        Case(
            "banking77, scaffold and int8", classify,
            (f"data.path={data / 'banking77'}", dirichlet, "federation.num_rounds=1",
             "federation.algorithm=scaffold", "train.max_steps=20", "adapter.head=lda",
             "adapter.head_features=null", "evaluate.baselines=[local]",
             "federation.stages=[{name: quantise, dtype: int8}]", "adapter.r=32"),
        ),
        Case(
            "language model of 13 M, full", _written("full"),
            (lines, "adapter.method=full"),
        ),
        Case(
            "language model of 13 M, full, long rows", _written("long"),
            (lines, "adapter.method=full", "data.max_length=512",
             "train.per_device_train_batch_size=8"),
        ),
        Case(
            "language model of 13 M, LoRA and top-k", _written("lora"),
            (lines, "adapter.method=lora", "train.group_size=auto",
             "federation.stages=[{name: top_k, fraction: 0.05}]"),
        ),
    ]  # fmt: skip


def _written(name: str) -> Path:
    """An experiment file for the language model; the data are set on the command line."""
    path = SCRATCH / "plan" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"model: {{name_or_path: {_llama()}, task: causal-lm}}\n"
        "data: {path: data, partition: {num_clients: 4}, max_length: 128}\n"
        "train: {learning_rate: 1.0e-4, per_device_train_batch_size: 4, max_steps: 4}\n"
        "federation: {num_rounds: 2, clients_per_round: 2}\n"
        "evaluate: {every: 2}\n"
    )
    return path


def _gsm8k(data: Path) -> Path:
    """The first hundred rows, as a file of one data set."""
    import gzip

    path = SCRATCH / "plan" / "gsm8k.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(data / "gsm8k" / "train.jsonl.gz", "rt", encoding="utf-8") as stream:
        path.write_text("".join(line for _, line in zip(range(100), stream, strict=False)))
    return path


@functools.cache
def _llama() -> Path:
    """A LLaMA of 4 layers, d = 384, with random weights and the vocabulary of single bytes."""
    folder = SCRATCH / "plan" / "llama"
    if (folder / "config.json").is_file():
        return folder
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet, "<|end|>"])}
    tokenizer = Tokenizer(BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", model_max_length=1024
    )
    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=384, intermediate_size=1024, num_hidden_layers=4,
        num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=1024,
        bos_token_id=256, eos_token_id=256,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    made.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder
