"""Data: where rows come from, how they are divided among clients, what is held out."""

from __future__ import annotations

from atoll.data.federation import ClientCount, FederatedData
from atoll.data.loading import load
from atoll.data.partition import Partition
from atoll.data.rows import Row, RowKind, row_kind

__all__ = [
    "ClientCount",
    "FederatedData",
    "Partition",
    "Row",
    "RowKind",
    "load",
    "row_kind",
]
