"""Rows whose label shows in their words, and an experiment in which sites learn it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.support.models import WORDS, Zoo
from tests.support.scenes import write_clients

__all__ = ["HELD_OUT", "learnable_rows", "write_learnable"]

LABELS = ("sea", "land", "sky")
HELD_OUT, TRAINED = 60, 60
"""Rows of each client; the first ones are held out."""


def learnable_rows(clients: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    """Most words of a row are those of its label, some are anybody's."""
    return {client: [_row(random.Random(f"row {n} of {client}")) for n in range(HELD_OUT + TRAINED)]
            for client in clients}  # fmt: skip


def _row(draw: random.Random) -> dict[str, str]:
    place = draw.randrange(len(LABELS))
    own = WORDS[place :: len(LABELS)]
    words = [draw.choice(own if draw.random() < 0.95 else WORDS) for _ in range(8)]
    return {"text": " ".join(words), "label": LABELS[place]}


def write_learnable(
    folder: Path, zoo: Zoo, clients: Sequence[str], federation: Mapping[str, Any]
) -> Path:
    """Rows for the clients, and `experiment.yaml`: a small encoder whose adapter and head train.

    The clients are measured after the last round alone: a round is one question.
    """
    write_clients(folder / "data", learnable_rows(clients), test=HELD_OUT)
    written = {
        "model": {"name_or_path": zoo("bert"), "pooling": "mean"},
        "data": {"path": "data", "max_length": 24},
        "adapter": {"r": 2, "target_modules": ["query"], "head": "train"},
        "train": {"per_device_train_batch_size": 10, "device": "cpu", "group_size": 1,
                  "learning_rate": 0.01, "num_train_epochs": 2},
        "federation": {"clients_per_round": len(clients), **federation},
        "evaluate": {"baselines": [], "every": 1000},
        "output_dir": "runs/there",
    }  # fmt: skip
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(written))
    return path
