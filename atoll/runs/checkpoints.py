"""Checkpoints: where a run stands, whole or not at all, so that it survives its process.

checkpoints/round-N/ holds server.safetensors (every part of the server's state) and position.json
(round, exchanges, folded, and the digest of the tensors). A folder appears under its name when both
files are on the disk. `start` is the state before the first round, `best-N` the best one so far.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from atoll.core import Position, State
from atoll.disk.files import explained
from atoll.errors import RunError

__all__ = ["FORMAT", "Checkpoint", "latest", "read", "save_best", "save_round", "write"]

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
    for path in _rounds(folder)[KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


def save_best(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `best-N`, and then let go of the one that was best before."""
    name = f"best-{checkpoint.position.round}"
    write(folder / name, checkpoint)
    for path in folder.glob("best-*"):
        if path.name != name:
            shutil.rmtree(path, ignore_errors=True)


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write one checkpoint whole.

    Raises:
        RunError: a full disk, say; what was there before stays.
    """
    position = checkpoint.position
    flat = {
        f"{part}/{name}": value.detach().cpu().clone().contiguous()
        for part, tree in position.server.items()
        for name, value in tree.items()
    }
    tensors = save(flat)
    about = {
        "format": FORMAT,
        "round": position.round,
        "exchanges": position.exchanges,
        "folded": dict(position.folded),
        # A file of tensors has an order of its own, and sums follow the order of the names.
        "parts": {part: list(tree) for part, tree in position.server.items()},
        "seconds": checkpoint.seconds,
        "sha256": hashlib.sha256(tensors).hexdigest(),
    }
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=".partial-"))
        try:
            _synced(partial / "server.safetensors", tensors)
            _synced(partial / "position.json", json.dumps(about, indent=1).encode())
            # One of this name is of a round that is being repeated: nothing goes on from it.
            shutil.rmtree(path, ignore_errors=True)
            os.replace(partial, path)
            _sync_folder(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


class _Damaged(Exception):
    """Why a checkpoint cannot be used."""


def _synced(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(path: Path) -> None:
    """A new name in a folder is on the disk when the folder is."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sweep(folder: Path) -> None:
    """Take away what processes that were killed left unfinished."""
    for path in folder.glob(".partial-*"):
        shutil.rmtree(path, ignore_errors=True)


def latest(folder: Path, note: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; `note` hears of those that are not.

    Raises:
        RunError: when there are only damaged ones, or one of another version of Atoll.
    """
    damaged: list[str] = []
    for path in _rounds(folder):
        try:
            found = read(path)
        except _Damaged as error:
            damaged.append(f"checkpoint {path.name} is damaged ({error})")
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
    """Read one checkpoint and check it whole.

    Raises:
        RunError: when another version of Atoll wrote it.
    """
    try:
        about = json.loads((path / "position.json").read_text(encoding="utf-8"))
        written = about["format"]
        if written != FORMAT:
            raise RunError(
                f"{path} is a checkpoint of another version of Atoll (format {written}, this one "
                f"reads {FORMAT}); go on with that version, or remove {path.parent.parent}"
            )
        content = (path / "server.safetensors").read_bytes()
        if hashlib.sha256(content).hexdigest() != about["sha256"]:
            raise _Damaged("its tensors are not those that were written")
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


def _rounds(folder: Path) -> list[Path]:
    """The rounds' checkpoints, newest first."""

    def numbered() -> Iterator[tuple[int, Path]]:
        for path in folder.glob("round-*"):
            number = path.name.removeprefix("round-")
            if number.isdigit():
                yield int(number), path

    return [path for _, path in sorted(numbered(), reverse=True)]
