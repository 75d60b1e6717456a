"""What the frozen blocks below the trained ones make of each row: computed once, and kept.

A row is computed together with its kin, whoever asks for it: so its numbers do not depend on the
batch that first needed them, and a run that goes on after a stop has the same ones.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from atoll.adapters.site import Frame
from atoll.errors import RunError
from atoll.local.boundary import Boundary
from atoll.models.objective import Batch, Example, Kin
from atoll.tree import Tree

__all__ = ["KIN", "Prefix", "Shelf", "disk_shelf", "memory_shelf", "with_kin"]

KIN = 16
"""Rows that run together: enough for fast products, few enough to be of one length."""
Collate = Callable[[Sequence[Example | None]], Batch]


@dataclass(frozen=True)
class Shelf:
    """Where activations lie: find (key) -> [T, d] or None; keep (key, [T, d])."""

    find: Callable[[bytes], Tensor | None]
    keep: Callable[[bytes, Tensor], None]


def memory_shelf() -> Shelf:
    """In memory, as long as the process lives."""
    held: dict[bytes, Tensor] = {}
    return Shelf(held.get, held.__setitem__)


def disk_shelf(path: Path) -> Shelf:
    """In a SQLite file, which several processes may share and a kill does not damage.

    Its functions raise RunError where the file is damaged, or the disk is full.
    """
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
        with _told(path):
            row = store().execute("SELECT value FROM rows WHERE key = ?", (key,)).fetchone()
            return None if row is None else load(row[0])["row"]

    def keep(key: bytes, value: Tensor) -> None:
        raw = save({"row": value.contiguous()})
        with _told(path):
            store().execute("INSERT OR IGNORE INTO rows VALUES (?, ?)", (key, raw))

    return Shelf(find, keep)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, SafetensorError) as error:
        raise RunError(
            f"{path} cannot be used: {error}; free some space, or remove the file, which is made "
            "again, and run the same command again"
        ) from error


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
        found = [self.shelf.find(key) for key in self._keys(row)]
        if any(value is None for value in found):
            for one, values in self._computed([row] if row.kin is None else row.kin.rows):
                if one is row:
                    found = list(values)
                for key, value in zip(self._keys(one), values, strict=True):
                    self.shelf.keep(key, value)
        return [value for value in found if value is not None]

    def _computed(self, rows: Sequence[Example]) -> Iterator[tuple[Example, list[Tensor]]]:
        """Each row, and what the blocks make of its views."""
        device = next(self.boundary.model.model.parameters()).device
        batch = self.collate(rows).to(device)
        hidden = iter(self.boundary.prefix(batch.inputs).cpu())
        for row in rows:
            views = [(view, next(hidden)) for view in _halves(row)]
            cut = batch.length is not None
            yield row, [(one[: len(view.ids)] if cut else one).clone() for view, one in views]

    @staticmethod
    def _views(
        row: Example | None, known: dict[int, list[Tensor]], count: int
    ) -> list[Tensor | None]:
        return [None] * count if row is None else list(known[id(row)])

    def _keys(self, row: Example) -> list[bytes]:
        mark = self.mark + (_content([row]) if row.kin is None else row.kin.mark)
        return [
            hashlib.blake2b(mark + bytes([view]), digest_size=16).digest()
            for view in range(len(_halves(row)))
        ]


def with_kin(rows: Sequence[Example], size: int = KIN) -> list[Example]:
    """The same rows, in their order, each with the `size` that run with it."""
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    found = list(rows)
    for start in range(0, len(order), size):
        places, kin = order[start : start + size], list[Example]()
        mark = _content([rows[row] for row in places])
        for place, row in enumerate(places):
            found[row] = replace(rows[row], kin=Kin(kin, mark + place.to_bytes(4, "big")))
            kin.append(found[row])
    return found


def _content(rows: Sequence[Example]) -> bytes:
    """A digest of what the model reads of rows."""
    digest = hashlib.blake2b(digest_size=16)
    for view in (view for row in rows for view in _halves(row)):
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
