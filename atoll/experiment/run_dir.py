"""The run directory: what a run writes, and where.

experiment.yaml (resolved) · run.json (versions, seed, command, fingerprints) · rounds.jsonl ·
clients.jsonl · summary.json · adapter/
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue

from atoll.config import dump
from atoll.config.words import shown
from atoll.config.yaml_text import parse
from atoll.errors import RunError
from atoll.experiment.files import append_line, write_json, write_text
from atoll.experiment.lock import alone
from atoll.experiment.setup import Setup
from atoll.experiment.words import listed
from atoll.models.locate import fingerprint

__all__ = ["RunDirectory", "differences", "finished", "open_run"]

PACKAGES = ("atoll", "torch", "transformers", "peft", "datasets", "flwr-datasets", "safetensors")


@dataclass(frozen=True)
class RunDirectory:
    """Paths and appends; every whole file appears at once."""

    path: Path

    @property
    def adapter(self) -> Path:
        """Where the trained adapter goes."""
        return self.path / "adapter"

    def add_round(self, line: dict[str, Any]) -> None:
        """One line of rounds.jsonl."""
        append_line(self.path / "rounds.jsonl", line)

    def add_client(self, line: dict[str, Any]) -> None:
        """One line of clients.jsonl."""
        append_line(self.path / "clients.jsonl", line)

    def finish(self, summary: dict[str, Any]) -> None:
        """Write summary.json, which says that the run is complete."""
        write_json(self.path / "summary.json", summary)


def finished(path: Path, resolved: str) -> dict[str, Any] | None:
    """The summary of a finished run of the same experiment, or None.

    Raises:
        RunError: when the directory belongs to another experiment, or cannot be read.
    """
    if not path.exists():
        _check_place(path)
        return None
    if not path.is_dir():
        raise RunError(f"output_dir {path} is a file; set output_dir to a directory")
    held = path / "experiment.yaml"
    if not held.is_file():
        if any(path.iterdir()):
            raise RunError(
                f"output_dir {path} holds files that are not of a run; set output_dir to a new one"
            )
        return None
    with alone(path):
        before = held.read_text(encoding="utf-8")
    if before != resolved:
        raise RunError(
            f"{path} holds a run of another experiment ({differences(before, resolved)}); "
            "set output_dir to a new directory, or remove it"
        )
    if not (path / "summary.json").is_file():
        return None
    if not (path / "run.json").is_file():
        raise RunError(
            f"{path}/run.json is missing, which a finished run has; remove {path}/summary.json, "
            "and run the same command again"
        )
    try:
        summary: dict[str, Any] = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(
            f"{path}/summary.json is damaged ({error}); remove it, and run the same command again"
        ) from None
    return summary


def _check_place(path: Path) -> None:
    """Refuse a directory that could not be made, before hours of training."""
    place = next(each for each in [path, *path.absolute().parents] if each.exists())
    if place != path and not place.is_dir():
        raise RunError(f"output_dir is {path}, but {place} is a file; set output_dir elsewhere")
    if place.is_dir() and not os.access(place, os.W_OK | os.X_OK):
        raise RunError(f"output_dir is {path}, but you may not write in {place}; set it elsewhere")


def differences(before: str, after: str) -> str:
    """`federation.num_rounds: 2 -> 3`: the keys in which two resolved experiments differ."""
    old, new = (_flat(parse(text, at=str).tree) for text in (before, after))
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return listed([f"{key}: {shown(old.get(key))} -> {shown(new.get(key))}" for key in keys])


def _flat(tree: JsonValue, path: str = "") -> dict[str, JsonValue]:
    if not isinstance(tree, dict) or not tree:
        return {path: tree}
    return {
        key: value
        for name, inner in tree.items()
        for key, value in _flat(inner, f"{path}.{name}" if path else name).items()
    }


def open_run(path: Path, setup: Setup) -> RunDirectory:
    """Begin a run in `path`; lines of an unfinished run of the same experiment are dropped."""
    run = RunDirectory(path)
    write_text(path / "experiment.yaml", dump(setup.experiment))
    for name in ("rounds.jsonl", "clients.jsonl"):
        (path / name).unlink(missing_ok=True)
    write_json(
        path / "run.json",
        {
            "versions": {name: version(name) for name in PACKAGES},
            "python": platform.python_version(),
            "machine": platform.platform(),
            "command": sys.argv,
            "seed": setup.experiment.seed,
            "threads": torch.get_num_threads(),
            "device": str(setup.bench.device),
            "group_size": setup.bench.group_size,
            "dtype": str(next(setup.base.model.parameters()).dtype).removeprefix("torch."),
            "targets": list(setup.built.targets),
            "fingerprints": {
                "base": fingerprint(setup.base.backbone),
                "data": setup.data.fingerprint,
            },
            "data": setup.data.card(),
        },
    )
    return run
