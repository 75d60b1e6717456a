"""A federation on disk in the form that users bring: a folder a client with JSON lines in it."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import yaml

from benchmarks.common import SCRATCH
from benchmarks.models import NUM_LABELS, VOCABULARY, tiny_folder

__all__ = ["COHORT", "experiment_file", "federation_folder"]

COHORT = 20
SPECIAL = 5  # the tokenizer's own ids; `w0` is the word after them


def federation_folder(clients: int, *, rows: int, tokens: int, tests: int = 1) -> Path:
    """`clients` folders with `rows` rows of exactly `tokens` tokens; made once.

    tests: held-out rows of each client, in a file of their own.
    """
    folder = SCRATCH / f"clients-{clients}-{rows}-{tests}-{tokens}"
    if (folder / ".done").is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    for client in range(clients):
        draw = random.Random(client)
        place = folder / f"client-{client:05d}"
        place.mkdir(parents=True)
        for split, count in (("train", rows), ("test", tests)):
            if count:
                (place / f"{split}.jsonl").write_text(_lines(draw, client, count, tokens))
    (folder / ".done").touch()
    return folder


def _lines(draw: random.Random, client: int, count: int, tokens: int) -> str:
    """Random words; the labels of the first clients go through all there are."""
    words = VOCABULARY - SPECIAL
    made = []
    for number in range(count):
        # [CLS] and [SEP] belong to the tokens of a row.
        text = " ".join(f"w{draw.randrange(words)}" for _ in range(tokens - 2))
        label = (client * count + number) % NUM_LABELS
        made.append(json.dumps({"text": text, "label": f"label {label:02d}"}))
    return "\n".join(made) + "\n"


def experiment_file(
    path: Path, data: Path, *, clients: int, num_rounds: int, holdout: float = 0.1
) -> Path:
    """Workload W1 as an experiment file: LoRA r = 4 on all linear layers, a trained head."""
    content = {
        "model": {
            "name_or_path": str(tiny_folder()),
            "task": "classification",
            "pooling": "mean",
            "normalize": False,
        },
        "data": {
            "path": str(data),
            "max_length": 32,
            "holdout": holdout,
            "labels": [f"label {number:02d}" for number in range(NUM_LABELS)],
        },
        "adapter": {"method": "lora", "r": 4, "lora_alpha": 8, "head": "train"},
        "train": {
            "learning_rate": 1e-3,
            "per_device_train_batch_size": 8,
            "max_grad_norm": None,
        },
        "federation": {"num_rounds": num_rounds, "clients_per_round": min(COHORT, clients)},
        # Rounds are what is measured; the model is looked at only after the last one.
        "evaluate": {"every": 1_000_000, "baselines": []},
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path
