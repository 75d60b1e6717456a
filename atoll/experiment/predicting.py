"""Rows that hold something to predict: the clients that have them, and a first look at two."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from atoll.data import FederatedData
from atoll.errors import DataError
from atoll.experiment.examples import told_of
from atoll.models.objective import Batch, Example, Objective
from atoll.tasks.kind import EMPTY

__all__ = ["predicting", "probe_batch", "told_unmeasured"]

_NAMED = 3


def probe_batch(objective: Objective, data: FederatedData) -> Batch:
    """The beginnings of two rows, the same one twice where there is only one.

    Raises:
        DataError: when no row of any client holds something to predict.
    """
    for client in data.clients:
        rows = data.rows(client, "train")
        with told_of(f"client {client}, training rows"):
            first = objective.encode(rows[:2]) or objective.encode(rows)
        if first:
            return objective.collate([example.cut(8) for example in (first * 2)[:2]])
    raise DataError(f"no training row of any client has anything to predict: {EMPTY}")


def predicting(
    data: FederatedData,
    examples: Callable[[str, str], Sequence[Example]],
    *,
    note: Callable[[str], None],
) -> FederatedData:
    """The data without clients whose training rows all hold nothing to predict.

    Says whose rows do; such rows are not encoded, and no longer counted.
    examples: (client, "train") -> the client's encoded rows.
    """
    usable = {client: sum(one.rows for one in examples(client, "train")) for client in data.clients}
    missing = {client: data.counts[client].train - rows for client, rows in usable.items()}
    found = {client: number for client, number in missing.items() if number}
    for client, number in list(found.items())[:_NAMED]:
        rows = "1 row" if number == 1 else f"{number} rows"
        verbs = ("has", "is") if number == 1 else ("have", "are")
        told = f"{rows} of client {client} {verbs[0]} nothing to predict"
        note(f"{told} and {verbs[1]} left out: {EMPTY}")
    others = len(found) - _NAMED
    if others > 0:
        clients = "client" if others == 1 else "clients"
        note(f"rows of {others} more {clients} have nothing to predict and are left out")
    none = [client for client, rows in usable.items() if not rows]
    return data.counting(usable).without(none, EMPTY)


def told_unmeasured(
    data: FederatedData,
    examples: Callable[[str, str], Sequence[Example]],
    common: Callable[[], Sequence[Example] | None],
    *,
    note: Callable[[str], None],
) -> None:
    """Say that no row to measure with holds something to predict, where there are such rows.

    examples: (client, "test") -> the client's encoded rows.   common: those of nobody.
    """
    found = common()
    if found is not None:
        rows, whose = bool(data.test()), "row of the common test set"
    else:
        rows, whose = any(count.test for count in data.counts.values()), "held-out row"
        found = [example for client in data.clients for example in examples(client, "test")[:1]]
    if rows and not found:
        note(f"no {whose} has anything to predict, so that nothing is measured there: {EMPTY}")
