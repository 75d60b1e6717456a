"""Experiments on tiny models and data, prepared as `atoll run` prepares them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from atoll.config import load
from atoll.config.tasks import TASKS
from atoll.core import State
from atoll.experiment.setup import Setup, prepare
from tests.support.federation import LABELS, labelled_rows, stir, text_rows
from tests.support.models import Zoo

__all__ = ["SUMMARY", "scene", "stirred", "write_clients"]

SUMMARY: dict[str, Any] = {
    "num_rounds": 3,
    "exchanges": 1,
    "metric": "accuracy",
    "final": 0.5,
    "baselines": {"local": None, "pooled": 0.25},
}


def write_clients(
    folder: Path, rows: Mapping[str, Sequence[Mapping[str, str]]], *, test: int = 2
) -> Path:
    """data/<client>/{train,test}.jsonl; the first `test` rows are also each client's test rows."""
    for client, own in rows.items():
        place = folder / client
        place.mkdir(parents=True)
        for split, part in (("train", own), ("test", own[:test])):
            text = "".join(json.dumps(row) + "\n" for row in part)
            (place / f"{split}.jsonl").write_text(text)
    return folder


def scene(folder: Path, zoo: Zoo, kind: str = "bert", **sections: Mapping[str, Any]) -> Setup:
    """An experiment file in `folder`, over clients of uneven rows, ready to run."""
    folder.mkdir(parents=True, exist_ok=True)
    language = kind in ("gpt2", "llama")
    if not (folder / "data").exists():
        write_clients(folder / "data", text_rows() if language else labelled_rows())
    task = "causal-lm" if language else "classification"
    written: dict[str, Any] = {
        "model": {"name_or_path": zoo(kind), "task": task},
        "data": {"path": str(folder / "data"), "max_length": 24},
        "train": {"per_device_train_batch_size": 4, "group_size": 2, "device": "cpu"},
        "output_dir": str(folder / "run"),
    }
    if not language and "privacy" in sections:
        # Those of the rows above, as they would be collected from them.
        written["data"]["labels"] = sorted(LABELS)
    for name, values in sections.items():
        written[name] = {**written.get(name, {}), **values}
    if not TASKS[written["model"]["task"]].texts:
        del written["data"]["max_length"]
    (folder / "experiment.yaml").write_text(yaml.safe_dump(written))
    return prepare(load(folder / "experiment.yaml"), note=lambda text: None)


def stirred(setup: Setup) -> State:
    """The server's state after some training, as far as an export can tell."""
    state = setup.start.server
    return {
        part: stir(tree, seed, std=0.1) if part in ("adapter", "head") else tree
        for seed, (part, tree) in enumerate(state.items())
    }


def largest(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a.double() - b.double()).abs().max())
