"""Which worker a client sits with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["assign"]


def assign(
    clients: Sequence[str], rows: Mapping[str, int], *, workers: int, kept: Mapping[str, int]
) -> dict[str, int]:
    """A worker, from 0, for each client; those in `kept` stay where they are.

    The largest first, each to the worker with the fewest rows so far: at most 4/3 − 1/(3·workers)
    of the best possible longest turn. Source: Graham, Bounds on Multiprocessing Timing Anomalies
    (SIAM J. Appl. Math. 17, 1969), theorem 2.
    """
    places = {client: kept[client] for client in clients if client in kept}
    load = [0] * workers
    for client, place in places.items():
        load[place] += rows[client]
    for client in sorted(set(clients) - places.keys(), key=lambda name: (-rows[name], name)):
        place = min(range(workers), key=lambda worker: (load[worker], worker))
        places[client] = place
        load[place] += rows[client]
    return places
