"""What the frozen blocks below the trained ones make of each row: computed once, and kept.

Every row is computed by itself, so that its numbers do not depend on the batch that first needed
them, and a run that goes on after a stop has the same ones.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from atoll.adapters.site import Frame
from atoll.local.boundary import Boundary
from atoll.models.objective import Batch, Example
from atoll.tree import Tree

__all__ = ["Prefix", "Shelf", "disk_shelf", "memory_shelf"]

Collate = Callable[[Sequence[Example | None]], Batch]


@dataclass(frozen=True)
class Shelf:
    """Where activations lie: find (key) -> [T, d] or None; keep (key, [T, d])."""

    find: Callable[[bytes], Tensor | None]
    keep: Callable[[bytes, Tensor], None]


def memory_shelf(max_bytes: int) -> Shelf:
    """In memory, the first rows that come until it is full: a pass over the rows meets them all."""
    held: dict[bytes, Tensor] = {}
    size = 0

    def keep(key: bytes, value: Tensor) -> None:
        nonlocal size
        if size + value.nbytes <= max_bytes:
            held[key] = value
            size += value.nbytes

    return Shelf(held.get, keep)


def disk_shelf(path: Path) -> Shelf:
    """In a SQLite file, which several processes may share and a kill does not damage."""
    opened: list[sqlite3.Connection] = []

    def store() -> sqlite3.Connection:
        if not opened:
            path.parent.mkdir(parents=True, exist_ok=True)
            opened.append(sqlite3.connect(path, timeout=60, isolation_level=None))
            opened[0].execute("PRAGMA journal_mode=WAL")
            opened[0].execute(
                "CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID"
            )
        return opened[0]

    def find(key: bytes) -> Tensor | None:
        row = store().execute("SELECT value FROM rows WHERE key = ?", (key,)).fetchone()
        return None if row is None else load(row[0])["row"]

    def keep(key: bytes, value: Tensor) -> None:
        raw = save({"row": value.contiguous()})
        store().execute("INSERT OR IGNORE INTO rows VALUES (?, ?)", (key, raw))

    return Shelf(find, keep)


@dataclass(frozen=True)
class Prefix:
    """Runs a model from the boundary on.

    mark: of the base model and the boundary, so that rows of another one are never taken.
    """

    boundary: Boundary
    collate: Collate
    shelf: Shelf
    mark: bytes

    def forward(
        self, values: Tree, rows: Sequence[Example | None], batch: Batch, frame: Frame
    ) -> Tensor:
        """Outputs of a batch of `rows` (None: padding), as `StackedModel.forward` gives them."""
        known = {id(row): self._of(row) for row in rows if row is not None}
        views = [view for row in rows for view in self._views(row, known, batch.views)]
        device = next(iter(batch.inputs.values())).device
        shape = _padded(batch, views)
        like = next(view for view in views if view is not None)
        hidden = torch.zeros(len(views), *shape, dtype=like.dtype)
        for place, view in enumerate(views):
            if view is not None:
                hidden[place, : len(view)] = view
        with self.boundary.skipped(hidden.to(device)):
            return self.boundary.model.forward(values, batch.inputs, frame)

    def _of(self, row: Example) -> list[Tensor]:
        """The activations of a row's views."""
        keys = [self._key(view) for view in _halves(row)]
        found = [self.shelf.find(key) for key in keys]
        if any(value is None for value in found):
            found = list(self._computed(row))
            for key, value in zip(keys, found, strict=True):
                assert value is not None, "a view was not computed"
                self.shelf.keep(key, value)
        return [value for value in found if value is not None]

    def _computed(self, row: Example) -> Iterator[Tensor]:
        device = next(self.boundary.model.model.parameters()).device
        batch = self.collate([row]).to(device)
        hidden = self.boundary.prefix(batch.inputs).cpu()
        for view, one in zip(_halves(row), hidden, strict=True):
            yield one[: len(view.ids)].clone() if batch.length is not None else one.clone()

    @staticmethod
    def _views(
        row: Example | None, known: dict[int, list[Tensor]], count: int
    ) -> list[Tensor | None]:
        return [None] * count if row is None else list(known[id(row)])

    def _key(self, view: Example) -> bytes:
        digest = hashlib.blake2b(self.mark, digest_size=16)
        for array in (view.ids, view.positions, view.pixels):
            if array is not None:
                digest.update(f"{array.dtype}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.digest()


def _halves(row: Example) -> list[Example]:
    """The views of a row."""
    return [row] if row.pair is None else [row, *_halves(row.pair)]


def _padded(batch: Batch, views: Sequence[Tensor | None]) -> tuple[int, int]:
    """(T, d) of the batch's hidden states."""
    like = next(view for view in views if view is not None)
    return (len(like) if batch.length is None else batch.length), like.shape[1]
