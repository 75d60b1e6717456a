"""Checkpoints: where a run stands, whole or not at all, so that it survives its process.

checkpoints/round-N/ holds server.safetensors (every part of the server's state) and position.json
(round, exchanges, folded, and the digest of all that). A folder appears under its name when both
files are on the disk. `start` is the state before the first round, `best-N` the best one so far.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load

from atoll.core import Position, State
from atoll.core.packed import in_parts
from atoll.disk.files import sweep
from atoll.disk.folder import new_folder
from atoll.errors import RunError

__all__ = ["FORMAT", "Checkpoint", "latest", "read", "save_best", "save_round", "tidy", "write"]

FORMAT = 1
KEPT = 2
"""Checkpoints that stay: one to go on from, and one for when that one is damaged."""


@dataclass(frozen=True)
class Checkpoint:
    """Where the run stands, and the seconds that it has taken so far."""

    position: Position
    seconds: float = 0.0


def save_round(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `round-N`, and let go of older ones."""
    write(folder / f"round-{checkpoint.position.round}", checkpoint)
    _let_go(_numbered(folder, "round")[KEPT:])


def save_best(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `best-N`, and then let go of the one that was best before."""
    path = folder / f"best-{checkpoint.position.round}"
    write(path, checkpoint)
    _let_go([other for other in folder.glob("best-*") if other != path])


def tidy(folder: Path, done: int) -> None:
    """Let go of what a process that was killed had no time for, where a run goes on after `done`.

    A best one of a later round stays: that round is run again.
    """
    _let_go(_numbered(folder, "round")[KEPT:])
    _let_go([path for path in _numbered(folder, "best") if _number(path) <= done][1:])


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write one checkpoint whole.

    Raises:
        RunError: a full disk, say; what was there before stays.
    """
    position = checkpoint.position
    # Each tensor is written from where it lies: the state is not in memory twice.
    tensors = in_parts(
        {f"{part}/{name}": v for part, tree in position.server.items() for name, v in tree.items()},
        {},
    )
    about = {
        "format": FORMAT,
        "round": position.round,
        "exchanges": position.exchanges,
        "folded": dict(position.folded),
        # A file of tensors has an order of its own, and sums follow the order of the names.
        "parts": {part: list(tree) for part, tree in position.server.items()},
        "seconds": checkpoint.seconds,
    }
    about["sha256"] = _digest(about, *tensors)
    sweep(path.parent)
    with new_folder(path) as partial:
        with (partial / "server.safetensors").open("wb") as file:
            file.writelines(tensors)
        (partial / "position.json").write_text(json.dumps(about, indent=1), encoding="utf-8")


class _Damaged(Exception):
    """Why a checkpoint cannot be used."""


def _digest(about: Mapping[str, Any], *tensors: bytes | memoryview) -> str:
    """Of the tensors' file and of what stands beside it; seconds move no number."""
    named = {name: value for name, value in about.items() if name not in ("sha256", "seconds")}
    found = hashlib.sha256(json.dumps(named, sort_keys=True).encode())
    for part in tensors:
        found.update(part)
    return found.hexdigest()


def latest(
    folder: Path,
    note: Callable[[str], None],
    also: Callable[[Position], str | None] = lambda position: None,
) -> Checkpoint | None:
    """The newest checkpoint that is whole; `note` hears of those that are not.

    also: what else is damaged of what a run needs that goes on from there; None: nothing.

    Raises:
        RunError: when there are only damaged ones, or one of another version of Atoll.
    """
    damaged: list[str] = []
    for path in _numbered(folder, "round"):
        try:
            found = _read(path)
        except _Damaged as error:
            damaged.append(f"checkpoint {path.name} is damaged ({error})")
            continue
        if (why := also(found.position)) is not None:
            damaged.append(f"checkpoint {path.name} cannot be used ({why})")
            continue
        for text in damaged:
            note(f"{text}; going on from {path.name}")
        return found
    if damaged:
        raise RunError(
            f"no checkpoint in {folder} can be read: {'; '.join(damaged)}. Remove {folder.parent} "
            "to run the experiment from its beginning"
        )
    return None


def read(path: Path) -> Checkpoint:
    """Read one checkpoint that no other can stand in for, and check it whole.

    Raises:
        RunError: when it is damaged, or another version of Atoll wrote it.
    """
    try:
        return _read(path)
    except _Damaged as error:
        run = path.parent.parent
        raise RunError(
            f"{path} is damaged ({error}); put it back, or remove {run} to run the experiment from "
            "its beginning"
        ) from None


def _read(path: Path) -> Checkpoint:
    try:
        about = json.loads((path / "position.json").read_text(encoding="utf-8"))
        written = about["format"]
        if written != FORMAT:
            raise RunError(
                f"{path} is a checkpoint of another version of Atoll (format {written}, this one "
                f"reads {FORMAT}); go on with that version, or remove {path.parent.parent}"
            )
        content = (path / "server.safetensors").read_bytes()
        if _digest(about, content) != about["sha256"]:
            raise _Damaged("it is not what was written")
        return _checkpoint(about, load(content))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise _Damaged(f"{type(error).__name__}: {error}") from error


def _checkpoint(about: dict[str, Any], tensors: dict[str, Any]) -> Checkpoint:
    server: State = {
        part: {name: tensors[f"{part}/{name}"] for name in names}
        for part, names in about["parts"].items()
    }
    position = Position(server, about["round"], about["exchanges"], about["folded"])
    return Checkpoint(position, about["seconds"])


def _numbered(folder: Path, kind: str) -> list[Path]:
    """Checkpoints of a kind, newest first."""
    found = [path for path in folder.glob(f"{kind}-*") if path.name.split("-")[1].isdigit()]
    return sorted(found, key=_number, reverse=True)


def _number(path: Path) -> int:
    return int(path.name.split("-")[1])


def _let_go(paths: Sequence[Path]) -> None:
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
