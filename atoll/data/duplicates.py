"""Rows that stand twice: at one client, at several, in training and in test rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from atoll.data.federation import FederatedData
from atoll.data.rows import RowKind
from atoll.data.scan import digest_of
from atoll.data.tables import Row

__all__ = ["Duplicates", "content", "duplicates"]

ANSWERS = ("label", "tags")


@dataclass(frozen=True)
class Duplicates:
    """Counts of rows whose content, without its label, stands elsewhere too.

    within: training rows that repeat one of the same client.   across: of another client.
    other_label: training rows that have another label than the first row of that content.
    own_test: clients' test rows that are among the client's own training rows.
    others_test: those that are among another client's alone.
    test: rows of the common test set that are among training rows.
    """

    within: int = 0
    across: int = 0
    other_label: int = 0
    own_test: int = 0
    others_test: int = 0
    test: int = 0

    def as_dict(self) -> dict[str, int]:
        """By name."""
        return asdict(self)


def content(row: Row, kind: RowKind) -> Row:
    """What a task reads of a row, without its label."""
    names = [name for name in kind.split("/") if name not in ANSWERS]
    return {name: row[name] for name in (*names, "input") if row.get(name) is not None}


def duplicates(data: FederatedData) -> Duplicates:
    """Count them; exact copies only, images by their content."""
    holders: dict[bytes, tuple[int, ...]] = {}
    labels: dict[bytes, str] = {}
    within = across = other_label = 0
    for number, client in enumerate(data.clients):
        for row in data.rows(client, "train"):
            key, label = _key(row, data.kind), _label(row)
            held = holders.get(key, ())
            within += number in held
            across += bool(held) and number not in held
            other_label += label != labels.setdefault(key, label)
            if number not in held:
                holders[key] = (*held, number)
    own = others = 0
    for number, client in enumerate(data.clients):
        for row in data.rows(client, "test"):
            held = holders.get(_key(row, data.kind), ())
            own += number in held
            others += bool(held) and number not in held
    return Duplicates(within, across, other_label, own, others, _common(data, holders))


def _common(data: FederatedData, holders: dict[bytes, tuple[int, ...]]) -> int:
    rows: Sequence[Row] = data.test() or ()
    return sum(_key(row, data.kind) in holders for row in rows)


def _key(row: Row, kind: RowKind) -> bytes:
    return digest_of({"": [content(row, kind)]})[:16]


def _label(row: Row) -> str:
    return json.dumps([row.get(name) for name in ANSWERS], default=str)
