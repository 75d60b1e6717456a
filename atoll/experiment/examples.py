"""Rows, encoded once: a client's while there is room, the common ones for the whole run."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from atoll.data import FederatedData
from atoll.errors import DataError
from atoll.local.prefix import with_kin
from atoll.models.objective import Example, Objective

__all__ = ["cached_examples", "common_examples", "told_of"]

CACHED_BYTES = 2**31


def cached_examples(
    objective: Objective, data: FederatedData
) -> Callable[[str, str], Sequence[Example]]:
    """Encoded rows of a client; the least recently used leave when all take too many bytes."""
    held: OrderedDict[tuple[str, str], list[Example]] = OrderedDict()
    size = 0

    def examples(client: str, split: str) -> Sequence[Example]:
        nonlocal size
        key = (client, split)
        if key not in held:
            rows = data.rows(client, "train" if split == "train" else "test")
            with told_of(f"client {client}, {'training' if split == 'train' else 'test'} rows"):
                held[key] = with_kin(objective.encode(rows))
            size += _nbytes(held[key])
            while len(held) > 1 and size > CACHED_BYTES:
                size -= _nbytes(held.popitem(last=False)[1])
        held.move_to_end(key)
        return held[key]

    return examples


@contextmanager
def told_of(whose: str) -> Iterator[None]:
    """Say whose rows could not be encoded.

    Raises:
        DataError: the same, with that before it.
    """
    try:
        yield
    except DataError as error:
        raise DataError(f"{whose}: {error}") from error


def _nbytes(examples: Sequence[Example]) -> int:
    return sum(example.nbytes for example in examples)


def common_examples(
    objective: Objective, data: FederatedData
) -> Callable[[], Sequence[Example] | None]:
    """The common test set, encoded when it is first asked for; None where there is none."""

    @functools.cache
    def examples() -> Sequence[Example] | None:
        rows = data.test()
        with told_of("the common test set"):
            return None if rows is None else with_kin(objective.encode(rows))

    return examples
