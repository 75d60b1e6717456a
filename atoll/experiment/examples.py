"""Rows, encoded once: a client's while there is room, the common ones for the whole run."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Sequence

from atoll.data import FederatedData
from atoll.models.objective import Example, Objective

__all__ = ["cached_examples", "common_examples"]

CACHED_ROWS = 200_000


def cached_examples(
    objective: Objective, data: FederatedData
) -> Callable[[str, str], Sequence[Example]]:
    """Encoded rows of a client; the least recently used leave when too many rows are held."""
    held: OrderedDict[tuple[str, str], list[Example]] = OrderedDict()
    count = 0

    def examples(client: str, split: str) -> Sequence[Example]:
        nonlocal count
        key = (client, split)
        if key not in held:
            held[key] = objective.encode(data.rows(client, "train" if split == "train" else "test"))
            count += len(held[key])
            while len(held) > 1 and count > CACHED_ROWS:
                count -= len(held.popitem(last=False)[1])
        held.move_to_end(key)
        return held[key]

    return examples


def common_examples(
    objective: Objective, data: FederatedData
) -> Callable[[], Sequence[Example] | None]:
    """The common test set, encoded when it is first asked for; None where there is none."""

    @functools.cache
    def examples() -> Sequence[Example] | None:
        rows = data.test()
        return None if rows is None else objective.encode(rows)

    return examples
