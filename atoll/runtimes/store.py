"""A client's own state between exchanges, versioned by the exchange that made it.

A reply may be lost on its way, and a run may be killed inside a round and come back to the end of
the one before, or of the one before that where the last checkpoint is damaged. So a client keeps
the states that such a run would start from beside those that it made since.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from safetensors.torch import load_file, save_file

from atoll.core import Context, State

__all__ = ["ClientStore", "disk_store", "memory_store"]

BACK = 2
"""Rounds that a run may go back: as many as it keeps checkpoints."""


@dataclass(frozen=True)
class ClientStore:
    """load: (context at the client, its last folded exchange or None) -> its state.

    Loading forgets versions that no run can come back to.
    save: (context at the client, state); an exchange that leaves no state costs nothing.
    """

    load: Callable[[Context, int | None], State]
    save: Callable[[Context, State], None]


@dataclass(frozen=True, order=True)
class _Version:
    exchange: int
    round: int


def memory_store() -> ClientStore:
    """States in memory, for clients whose state is small."""
    held: dict[str, dict[_Version, State]] = {}

    def load(context: Context, folded: int | None) -> State:
        versions = held.get(context.client, {})
        start, kept = _committed(versions, folded, context.round)
        if versions:
            held[context.client] = {version: versions[version] for version in kept}
        return {} if start is None else versions[start]

    def save(context: Context, state: State) -> None:
        if state or held.get(context.client):
            version = _Version(context.exchange, context.round)
            held.setdefault(context.client, {})[version] = state

    return ClientStore(load, save)


def disk_store(folder: Path) -> ClientStore:
    """States as safetensors, one folder a client; a version appears whole or not at all."""

    def load(context: Context, folded: int | None) -> State:
        files = {_version(path): path for path in _place(folder, context).glob("*.safetensors")}
        start, kept = _committed(files, folded, context.round)
        for version in files.keys() - kept:
            files[version].unlink()
        state: State = {}
        if start is not None:
            for name, value in load_file(files[start]).items():
                part, _, key = name.partition("/")
                state.setdefault(part, {})[key] = value
        return state

    def save(context: Context, state: State) -> None:
        place = _place(folder, context)
        if not state and not place.exists():
            return
        place.mkdir(parents=True, exist_ok=True)
        for path in place.iterdir():
            if path.suffix != ".safetensors":  # a part, left by a process that was killed
                path.unlink()
        flat = {f"{part}/{key}": v for part, tree in state.items() for key, v in tree.items()}
        handle, partial = tempfile.mkstemp(dir=place, suffix=".partial")
        os.close(handle)
        try:
            save_file(flat, partial)
            os.replace(partial, place / f"{context.exchange}-{context.round}.safetensors")
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise

    return ClientStore(load, save)


def _place(folder: Path, context: Context) -> Path:
    """A folder inside `folder`, whatever the client is called."""
    return folder / quote(context.client, safe="").replace(".", "%2E")


def _version(path: Path) -> _Version:
    exchange, round = path.stem.split("-")
    return _Version(int(exchange), int(round))


def _committed(
    versions: Collection[_Version], folded: int | None, round: int
) -> tuple[_Version | None, set[_Version]]:
    """The version to start from, and those to keep: it, and the last ones before two rounds.

    Other algorithms' exchanges may lie in between, so it is the last one up to `folded`.
    """
    known = sorted(version for version in versions if folded is not None and
                   version.exchange <= folded)  # fmt: skip
    kept = set(known[-1:])
    for back in range(BACK):
        kept.update([version for version in known if version.round < round - back][-1:])
    return (known[-1] if known else None), kept
