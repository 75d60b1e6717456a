"""A share of a client's own rows, kept from training to measure the client's own result."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np

from atoll.data.labels import class_of
from atoll.data.tables import Row
from atoll.errors import DataError

__all__ = ["check_share", "generator", "hold_out"]


def generator(seed: int, purpose: str, name: str = "") -> np.random.Generator:
    """A generator with an address: the same draw for the same client, whoever else takes part."""
    # The package's own addressed generators stand beside torch, which reading data does not need.
    digest = hashlib.sha256(f"{seed}/{purpose}/{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def check_share(share: float) -> None:
    """A share is at least 0 and below 1."""
    if not 0.0 <= share < 1.0:
        raise DataError(
            f"holdout is {share}, but it is a share of each client's rows; "
            "give a number from 0 up to 0.5, such as 0.1."
        )


def hold_out(
    rows: list[Row], *, share: float, seed: int, client: str
) -> tuple[list[Row], list[Row]]:
    """(train, held out): at least one row of each when there are two, none held out of one."""
    if share == 0.0 or len(rows) < 2:
        return rows, []
    wanted = min(max(1, round(share * len(rows))), len(rows) - 1)
    order = generator(seed, "holdout", client).permutation(len(rows)).tolist()
    held = _draw(rows, order, wanted)
    train = [row for index, row in enumerate(rows) if index not in held]
    return train, [rows[index] for index in sorted(held)]


def _draw(rows: list[Row], order: list[int], wanted: int) -> set[int]:
    # The last row of a label stays in training while others can go: no other client may have it.
    left = Counter(class_of(row) for row in rows)
    held: set[int] = set()
    for index in order:
        label = class_of(rows[index])
        if len(held) < wanted and (label is None or left[label] > 1):
            held.add(index)
            left[label] -= 1
    rest = [index for index in order if index not in held]
    return held.union(rest[: wanted - len(held)])
