"""Finished runs on tiny models, trained hard enough that what was trained shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atoll.local.infer import forward_batches
from atoll.runs.run import run_experiment
from atoll.runs.where import Observer
from atoll.trained.load_run import TrainedRun, load_run
from tests.support.models import Zoo
from tests.support.scenes import largest, scene

__all__ = ["TEXTS", "assert_says_the_same", "encoded", "finish", "opened", "said_by"]

# Of several lengths, one longer than max_length; all over one batch, so that padding is met.
TEXTS = ["reef tide coral", "boat", "sun moon star wind rain rope " * 6, "unknown words here"]


def finish(folder: Path, zoo: Zoo, kind: str, **sections: Mapping[str, Any]) -> Path:
    """The directory of a run, of one round where no section says otherwise."""
    train = {"learning_rate": 0.05, "num_train_epochs": 2, "group_size": 1, "device": "cpu",
             "prefix_cache": "off"}  # fmt: skip
    setup = scene(
        folder,
        zoo,
        kind,
        **{
            **sections,
            "train": {**train, **sections.get("train", {})},
            "federation": {"num_rounds": 1, **sections.get("federation", {})},
            "evaluate": {"baselines": []},
        },
    )
    run_experiment(setup, folder / "run", Observer())
    return folder / "run"


def opened(path: Path) -> TrainedRun:
    return load_run(path, note=lambda text: None)


def said_by(run: TrainedRun) -> list[Tensor]:
    """Atoll's logits of each text, [labels] or [tokens, vocabulary]."""
    examples = run.setup.bench.objective.encode([{"text": text} for text in TEXTS])
    found: dict[int, Tensor] = {}
    for numbers, _, logits in forward_batches(run.setup.bench, run.values, examples):
        found.update(zip(numbers, logits, strict=True))
    return [found[number] for number in range(len(TEXTS))]


def encoded(tokenizer: Any) -> Any:
    """The texts as a user encodes them, cut as in training."""
    return tokenizer(TEXTS, padding=True, truncation=True, max_length=24, return_tensors="pt")


def assert_says_the_same(
    ours: Sequence[Tensor], theirs: Tensor, lengths: Sequence[int], *, close: float
) -> None:
    """At every token of the texts; training adds an end to a text, and a batch adds padding."""
    for row, other, length in zip(ours, theirs, lengths, strict=True):
        if row.dim() == 2:
            row, other = row[:length], other[:length]
        assert torch.isfinite(other).all()
        assert largest(row, other) <= close * max(1.0, float(row.abs().max()))
