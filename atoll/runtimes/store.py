"""A client's own state between exchanges, versioned by the exchange that made it.

A reply may be lost on its way, and a run may be killed inside a round and come back to the end of
the one before, or of the one before that where the last checkpoint is damaged. So a client keeps
the states that such a run would start from beside those that it made since.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as packed

from atoll.core import Context, State
from atoll.disk.files import sweep, write_bytes
from atoll.errors import RunError
from atoll.tree import Tree

__all__ = ["ClientStore", "damaged_state", "disk_store", "memory_store"]

DIGEST = "sha256"

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
        files = _files(folder, context.client)
        start, kept = _committed(files, folded, context.round)
        for version in files.keys() - kept:
            files[version].unlink()
        state: State = {}
        if start is not None:
            for name, value in _read(files[start]).items():
                part, _, key = name.partition("/")
                state.setdefault(part, {})[key] = value
        return state

    def save(context: Context, state: State) -> None:
        place = _place(folder, context.client)
        if not state and not place.exists():
            return
        flat = {f"{part}/{key}": v for part, tree in state.items() for key, v in tree.items()}
        sweep(place)
        write_bytes(
            place / f"{context.exchange}-{context.round}.safetensors",
            packed(flat, metadata={DIGEST: _digest(flat)}),
        )

    return ClientStore(load, save)


def damaged_state(folder: Path, folded: Mapping[str, int]) -> str | None:
    """Which of the states that a run goes on from is not whole; `folded` as a position has it."""
    for client, exchange in folded.items():
        files = _files(folder, client)
        start, _ = _committed(files, exchange, 0)
        try:
            if start is not None:
                _read(files[start])
        except RunError as error:
            return str(error)
    return None


def _read(path: Path) -> Tree:
    try:
        with safe_open(path, "pt") as opened:
            flat = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            written = (opened.metadata() or {}).get(DIGEST)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} is damaged: {error}") from error
    if written != _digest(flat):
        raise RunError(f"{path} is damaged: it is not what was written")
    return flat


def _digest(flat: Tree) -> str:
    return hashlib.sha256(packed(flat)).hexdigest()


def _place(folder: Path, client: str) -> Path:
    """A folder inside `folder`, whatever the client is called."""
    return folder / quote(client, safe="").replace(".", "%2E")


def _files(folder: Path, client: str) -> dict[_Version, Path]:
    return {_version(path): path for path in _place(folder, client).glob("*.safetensors")}


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
