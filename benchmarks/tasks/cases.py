"""What is run: a recipe, a data set, a model, and what differs from the recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tasks import models, sets

__all__ = ["CASES", "Case"]


@dataclass(frozen=True)
class Case:
    """data: (the sets' folder, an empty one) -> data.path.   values: as typed after `atoll run`.

    model: (the sets' folder) -> model.name_or_path.   about: model, data and clients in words.
    """

    recipe: str
    data: Callable[[Path, Path], Path]
    model: Callable[[Path], str]
    values: tuple[str, ...]
    about: tuple[str, str, str]


def _minilm(data: Path) -> str:
    return "builtin:minilm"


def _smollm2(data: Path) -> str:
    return "builtin:smollm2"


WHOLE = "adapter.method=full"
TRAINED = "adapter.head=train"

CASES: dict[str, Case] = {
    "causal-lm": Case(
        "finetune", sets.instructions, _smollm2,
        ("data.max_length=128", "train.gradient_accumulation_steps=1",
         "federation.num_rounds=6", "evaluate.every=6"),
        ("SmolLM2, 135 M", "flan_clients_1", "8 task categories"),
    ),
    "causal-lm-scratch": Case(
        "finetune", sets.roles, models.llama,
        (WHOLE, "data.max_length=64", "train.learning_rate=3.0e-3",
         "train.per_device_train_batch_size=8", "train.gradient_accumulation_steps=1",
         "federation.num_rounds=15", "federation.fraction_train=0.2", "evaluate.every=15"),
        ("LLaMA of 0.4 M, from nothing", "shakespeare_roles", "113 roles"),
    ),
    "masked-lm-scratch": Case(
        "finetune", sets.presidents, models.bert,
        ("model.task=masked-lm", WHOLE, "data.max_length=64", "train.learning_rate=3.0e-3",
         "train.per_device_train_batch_size=8", "train.gradient_accumulation_steps=1",
         "federation.num_rounds=30", "federation.fraction_train=0.5", "evaluate.every=30"),
        ("BERT of 0.4 M, from nothing", "inaugural", "36 presidents"),
    ),
    "image-classification": Case(
        "vision", sets.drawers, models.vit_seen,
        ("data.partition={name: natural, by: client}",),
        ("ViT of 0.1 M that knows mnist10k", "omniglot_small", "16 drawers, 4 more to test"),
    ),
    "image-classification-scratch": Case(
        "vision", sets.digits, models.vit_digits,
        (WHOLE, TRAINED, "data.partition={name: dirichlet, alpha: 0.1, num_clients: 20}",
         "train.learning_rate=1.0e-3",
         "federation.num_rounds=30", "evaluate.every=15"),
        ("ViT of 0.1 M, from nothing", "digits", "20, Dirichlet 0.1"),
    ),
    "embedding": Case(
        "embed", sets.languages, _minilm, ("federation.num_rounds=5",),
        ("MiniLM, 22 M", "xquad", "6 languages"),
    ),
    "embedding-pictures": Case(
        "embed", sets.emoji_pictures, models.clip,
        (WHOLE, "data.partition={name: natural, by: client}", "data.max_length=16",
         "federation.num_rounds=20", "evaluate.every=10"),
        ("CLIP of 0.3 M, from nothing", "emoji_pairs", "8 groups of emoji"),
    ),
    "preference": Case(
        "dpo", sets.preferences, _smollm2,
        ("data.partition={num_clients: 4}", "data.max_length=128", "federation.num_rounds=2",
         "evaluate.every=2"),
        ("SmolLM2, 135 M", "pref_dpo_en, short prompts", "4, IID"),
    ),
    "token-classification": Case(
        "classify", sets.capitals, _minilm,
        ("model.task=token-classification", TRAINED, "train.head_learning_rate=0.02",
         "train.per_device_train_batch_size=4"),
        ("MiniLM, 22 M", "inaugural, capitals", "36 presidents"),
    ),
    "regression": Case(
        "classify", sets.presidents_years, _minilm,
        ("model.task=regression", "adapter.head_features=null"),
        ("MiniLM, 22 M", "inaugural, year", "36 presidents"),
    ),
    "multi-label-classification": Case(
        "classify", sets.emoji_tags, _minilm,
        ("model.task=multi-label-classification",),
        ("MiniLM, 22 M", "emoji_pairs, keywords", "8 groups of emoji"),
    ),
}  # fmt: skip
