"""A client's rows, encoded once and kept while there is room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from atoll.data import FederatedData
from atoll.models.objective import Example, Objective

__all__ = ["COMMON", "cached_examples"]

CACHED_ROWS = 200_000
COMMON = "*"
"""Stands for the common test set where a client is named; no roster name holds a star."""


def cached_examples(
    objective: Objective, data: FederatedData
) -> Callable[[str, str], Sequence[Example]]:
    """Encoded rows of a client; the least recently used leave when too many rows are held."""
    held: OrderedDict[tuple[str, str], list[Example]] = OrderedDict()

    def examples(client: str, split: str) -> Sequence[Example]:
        key = (client, split)
        if key not in held:
            rows = (
                (data.test() or [])
                if client == COMMON
                else data.rows(client, "train" if split == "train" else "test")
            )
            held[key] = objective.encode(rows)
            while len(held) > 1 and sum(map(len, held.values())) > CACHED_ROWS:
                held.popitem(last=False)
        held.move_to_end(key)
        return held[key]

    return examples
