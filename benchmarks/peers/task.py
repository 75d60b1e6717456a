"""Workload W1 as every system but Atoll gets it: the model by hand, and rows as token ids.

Nothing here imports Atoll, so that it runs in an environment that holds only the peers.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from benchmarks.overhead.bare import BareModel, Client, Pooled

__all__ = [
    "BATCH",
    "COHORT",
    "LABELS",
    "POPULATION",
    "RATE",
    "bare_model",
    "batches",
    "rounds",
    "rows",
]

POPULATION, COHORT, ROWS, BATCH, LABELS = 100, 20, 32, 8, 100
RATE, RANK, ALPHA = 1e-3, 4, 8.0
TRAINED = 49_764


def rounds() -> int:
    """How many rounds this run has."""
    return int(os.environ["BENCH_ROUNDS"])


def bare_model() -> BareModel:
    """The 4-layer encoder with LoRA r = 4 on its linear layers and a head of 100 labels."""
    backbone = AutoModel.from_pretrained(os.environ["BENCH_MODEL"])
    model = Pooled(backbone, torch.nn.Linear(backbone.config.hidden_size, LABELS))
    for value in model.head.parameters():
        torch.nn.init.zeros_(value)
    targets = [
        f"backbone.{name}"
        for name, module in backbone.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.startswith("pooler")
    ]
    bare = BareModel(model, targets, r=RANK, scale=ALPHA / RANK, causal=False)
    generator = torch.Generator().manual_seed(0)
    for name, value in bare.parameters.items():
        if name.endswith(".a"):
            bound = value.shape[1] ** -0.5
            torch.nn.init.uniform_(value, -bound, bound, generator=generator)
    count = sum(value.numel() for value in bare.parameters.values())
    assert count == TRAINED, f"{count} values train, not {TRAINED}"
    return bare


@cache
def _tokenizer():  # noqa: ANN202
    return AutoTokenizer.from_pretrained(os.environ["BENCH_MODEL"])


@cache
def rows(client: int) -> tuple[Tensor, Tensor]:
    """Token ids and labels of one client, read from the files that Atoll reads."""
    folder = sorted(Path(os.environ["BENCH_DATA"]).glob("client-*"))[client]
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    ids = _tokenizer()([line["text"] for line in lines], return_tensors="pt")["input_ids"]
    return ids, torch.tensor([int(line["label"].split()[1]) for line in lines])


def batches(client: int) -> Client:
    """One local epoch of a client for the bare loop."""
    ids, labels = rows(client)
    steps = list(torch.randperm(len(ids)).split(BATCH))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return Client(inputs, labels.unsqueeze(1), steps)
