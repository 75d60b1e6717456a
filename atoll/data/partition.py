"""Partitions: how one data set becomes many clients.

Each function's keyword arguments are its configuration; what it returns maps rows and a seed to
the row numbers of each client. Every row goes to exactly one client; a client may get none.

The three sizes come from flwr-datasets. Its label partitioners are not used, because they lose
or misplace rows: shards of one size drop the rest, classes drawn at random can leave a class out
with all its rows, and Dirichlet edges that are cut down give the last client a row of nearly every
label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from atoll.data.grouping import at_least_one, enough, groups_of, roster, values_of
from atoll.data.holdout import generator
from atoll.data.tables import Row
from atoll.errors import DataError

__all__ = [
    "Partition",
    "dirichlet",
    "iid",
    "natural",
    "pathological",
    "shard",
    "size_exponential",
    "size_linear",
    "size_square",
]

Partition = Callable[[Sequence[Row], int], dict[str, list[int]]]
ATTEMPTS = 100  # draws before a Dirichlet partition with `min_rows` is called impossible


def iid(*, num_clients: int) -> Partition:
    """Equal shares of the shuffled rows."""
    at_least_one(num_clients, "num_clients")

    def partition(rows: Sequence[Row], seed: int) -> dict[str, list[int]]:
        enough(rows, num_clients, what="clients")
        order = generator(seed, "partition").permutation(len(rows))
        return roster([part.tolist() for part in np.array_split(order, num_clients)])

    return partition


def dirichlet(*, num_clients: int, alpha: float, by: str = "label", min_rows: int = 0) -> Partition:
    """Each label's rows fall to the clients in Dirichlet(alpha) shares (Hsu et al., 2019)."""
    at_least_one(num_clients, "num_clients")
    if not 0 < alpha < float("inf"):
        raise DataError(f"alpha is {alpha}; give a number above 0 (0.1: strong skew, 100: none).")

    def partition(rows: Sequence[Row], seed: int) -> dict[str, list[int]]:
        enough(rows, num_clients, what="clients")
        groups = groups_of(rows, by, seed)
        rng = generator(seed, "dirichlet")
        for _ in range(ATTEMPTS):
            parts: list[list[int]] = [[] for _ in range(num_clients)]
            for group in groups.values():
                shares = rng.dirichlet(np.full(num_clients, alpha))
                edges = np.rint(np.cumsum(shares)[:-1] * len(group)).astype(int)
                for part, taken in zip(parts, np.split(group, edges), strict=True):
                    part.extend(taken.tolist())
            if min(len(part) for part in parts) >= min_rows:
                return roster(parts)
        raise DataError(
            f"{ATTEMPTS} draws of alpha {alpha} never left each of {num_clients} clients "
            f"{min_rows} of the {len(rows)} rows; raise alpha, lower min_rows, or take fewer "
            "clients."
        )

    return partition


def pathological(*, num_clients: int, classes_per_client: int, by: str = "label") -> Partition:
    """Each client holds rows of exactly this many classes, and every class is held by someone."""
    at_least_one(num_clients, "num_clients")
    at_least_one(classes_per_client, "classes_per_client")

    def partition(rows: Sequence[Row], seed: int) -> dict[str, list[int]]:
        groups = groups_of(rows, by, seed)
        _enough_classes(len(groups), num_clients, classes_per_client)
        rng = generator(seed, "pathological")
        holders: dict[str, list[int]] = {name: [] for name in groups}
        for client in range(num_clients):
            # The classes held least so far go first, so that none is left out; ties are drawn.
            drawn = rng.permutation(list(groups)).tolist()
            for name in sorted(drawn, key=lambda name: len(holders[name]))[:classes_per_client]:
                holders[name].append(client)
        parts: list[list[int]] = [[] for _ in range(num_clients)]
        for name, clients in holders.items():
            if len(clients) > len(groups[name]):
                raise DataError(
                    f"`{by}` {name} has {len(groups[name])} rows for {len(clients)} clients; "
                    "take fewer clients or fewer classes_per_client."
                )
            for client, taken in zip(
                clients, np.array_split(groups[name], len(clients)), strict=True
            ):
                parts[client].extend(taken.tolist())
        return roster(parts)

    return partition


def shard(*, num_clients: int, shards_per_client: int, by: str = "label") -> Partition:
    """Rows sorted by label and cut into equal shards, some for each (McMahan et al., 2017)."""
    at_least_one(num_clients, "num_clients")
    at_least_one(shards_per_client, "shards_per_client")

    def partition(rows: Sequence[Row], seed: int) -> dict[str, list[int]]:
        count = num_clients * shards_per_client
        enough(rows, count, what="shards")
        shards = np.array_split(np.concatenate(list(groups_of(rows, by, seed).values())), count)
        dealt = generator(seed, "shard").permutation(count).reshape(num_clients, -1)
        return roster([np.concatenate([shards[i] for i in hand]).tolist() for hand in dealt])

    return partition


def natural(*, by: str = "client") -> Partition:
    """One client for each value of a column."""

    def partition(rows: Sequence[Row], seed: int) -> dict[str, list[int]]:
        parts: dict[str, list[int]] = {}
        for index, value in enumerate(values_of(rows, by)):
            parts.setdefault(value, []).append(index)
        return dict(sorted(parts.items()))

    return partition


def size_linear(*, num_clients: int) -> Partition:
    """Client i (from 1) gets rows in proportion to i."""
    return _by_size(num_clients, lambda flower: flower.LinearPartitioner)


def size_square(*, num_clients: int) -> Partition:
    """Client i (from 1) gets rows in proportion to i squared."""
    return _by_size(num_clients, lambda flower: flower.SquarePartitioner)


def size_exponential(*, num_clients: int) -> Partition:
    """Client i (from 1) gets rows in proportion to exp(i)."""
    return _by_size(num_clients, lambda flower: flower.ExponentialPartitioner)


def _by_size(num_clients: int, kind: Callable[[Any], Any]) -> Partition:
    at_least_one(num_clients, "num_clients")

    def partition(rows: Sequence[Row], seed: int) -> dict[str, list[int]]:
        enough(rows, num_clients, what="clients")
        # Imported here: it brings matplotlib and pandas, some seconds of start.
        from datasets import Dataset
        from flwr_datasets import partitioner

        divide = kind(partitioner)(num_clients)
        order = generator(seed, "partition").permutation(len(rows))
        divide.dataset = Dataset.from_dict({"row": order})
        try:
            return roster([list(divide.load_partition(i)["row"]) for i in range(num_clients)])
        except ValueError as error:
            raise DataError(
                f"{len(rows)} rows among {num_clients} clients of growing size leave the first "
                "client none; take fewer clients, or another partition."
            ) from error

    return partition


def _enough_classes(classes: int, num_clients: int, classes_per_client: int) -> None:
    if classes_per_client > classes:
        raise DataError(
            f"classes_per_client is {classes_per_client}, but the rows have {classes} classes."
        )
    if num_clients * classes_per_client < classes:
        raise DataError(
            f"{num_clients} clients of {classes_per_client} classes cannot hold all {classes} "
            "classes; take more clients or raise classes_per_client."
        )
