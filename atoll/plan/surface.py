"""Bytes of passes and of rows, from a few that were counted to those of a run."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.plan.load import Batch

__all__ = ["Row", "Surface"]


@dataclass(frozen=True)
class Surface:
    """Bytes of a pass: of one client and of two, with one row each and with `rows`.

    length: tokens of each row.
    """

    one: float = 0.0
    one_many: float = 0.0
    two: float = 0.0
    two_many: float = 0.0
    rows: int = 1
    length: int = 1

    def at(self, batch: Batch) -> int:
        """Bytes of a batch; shorter rows count as fewer."""
        if not batch.rows:
            return 0
        each = batch.cells / self.length / batch.clients
        share = (each - 1) / (self.rows - 1) if self.rows > 1 else 0.0
        alone = self.one + share * (self.one_many - self.one)
        another = self.two - self.one
        another += share * (self.two_many - self.one_many - another)
        return round(max(alone, 0.0) + (batch.clients - 1) * max(another, 0.0))


@dataclass(frozen=True)
class Row:
    """Bytes of something over the rows of it."""

    base: float = 0.0
    row: float = 0.0

    def at(self, rows: int) -> int:
        """Bytes of so many rows."""
        return round(self.base + self.row * rows)
