"""Rows that are longer than `data.max_length`: how many, whose, and by how much."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from atoll.config import Experiment
from atoll.config.tasks import TASKS
from atoll.data import FederatedData
from atoll.data.federation import Split
from atoll.local.bench import Bench
from atoll.models.objective import Example
from atoll.words import counted

__all__ = ["told_lengths"]

SPLITS: tuple[Split, ...] = ("train", "test")


def told_lengths(
    experiment: Experiment,
    data: FederatedData,
    bench: Bench,
    common: Callable[[], Sequence[Example] | None],
    *,
    note: Callable[[str], None],
) -> None:
    """Encode every row once, and say how many of them are cut.

    Raises:
        DataError: for a row that is too long, where data.truncation is off.
    """
    if not TASKS[experiment.model.task].texts:
        return
    lengths = {
        client: [
            length for split in SPLITS for x in bench.examples(client, split) for length in x.over
        ]
        for client in data.clients
    }
    others = [length for x in common() or () for length in x.over]
    cut = [length for own in lengths.values() for length in own]
    if not cut and not others:
        return
    rows = sum(count.train + count.test for count in data.counts.values())
    clients = sum(bool(own) for own in lengths.values())
    told = [
        f"data.max_length is {experiment.data.max_length}: {len(cut)} of {counted(rows, 'row')} "
        f"({len(cut) / rows:.1%}), of {clients} of {counted(len(data.clients), 'client')}, "
        f"{'is' if len(cut) == 1 else 'are'} longer and cut"
    ]
    if others:
        told.append(
            f"{len(others)} of {counted(len(data.test() or ()), 'row')} of the common test set"
        )
    if data.kind == "tokens/tags":
        told.append(f"{counted(_words_lost(data, bench), 'word')} of them without a tag to learn")
    note(f"{'; '.join(told)}; the longest has {counted(max(cut + others), 'token')}")


def _words_lost(data: FederatedData, bench: Bench) -> int:
    """Words of clients' rows that stand behind the cut, or hold no token."""
    lost = 0
    for client in data.clients:
        for split in SPLITS:
            rows: list[dict[str, Any]] = data.rows(client, split)
            lost += sum(len(row["tokens"]) for row in rows)
            lost -= sum(map(bench.objective.count, bench.examples(client, split)))
    return lost
