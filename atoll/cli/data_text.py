"""The card of rows, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from atoll.words import counted

__all__ = ["show_card"]

SHOWN = 15


def show_card(card: Mapping[str, Any]) -> None:
    """Counts, clients, labels, and what to look at."""
    console = Console(highlight=False)
    console.print("\n".join(_head(card)), markup=False, soft_wrap=True)
    console.print()
    console.print(_clients(card))
    hidden = card["num_clients"] - SHOWN
    if hidden > 0:
        console.print(f"and {counted(hidden, 'more client')}; --format json has them all\n")
    if card["labels"] is not None:
        console.print(_labels(card["labels"]))
        console.print(f"{_spread(card['labels'])}\n", soft_wrap=True)
    if card["remarks"]:
        lines = ["Look at:", *(f"  - {text}" for text in card["remarks"])]
        console.print("\n".join(lines), markup=False, soft_wrap=True)


def _head(card: Mapping[str, Any]) -> Iterator[str]:
    yield f"{card['path']}: {card['kind'].replace('/', ' and ')} rows"
    clients = counted(card["num_clients"], "client")
    parts = [f"{card['train']} training rows", f"{card['own_test']} held-out rows"]
    parts += [] if card["test"] is None else [f"{card['test']} in the common test set"]
    parts += [] if card["val"] is None else [f"{card['val']} in the validation set"]
    yield f"{clients}: {', '.join(parts)}"
    if not card["divided"]:
        yield "one data set: a run needs data.partition to divide it among clients"
    for name, why in list(card["skipped"].items())[:SHOWN]:
        yield f"left out: {name} ({why})"
    hidden = len(card["skipped"]) - SHOWN
    if hidden > 0:
        yield f"and {counted(hidden, 'more client')} left out"
    found = card["characters"]
    if found is not None:
        yield (
            f"characters: median {found['median']:.0f}, 90 % of rows {found['low']:.0f} to "
            f"{found['high']:.0f}, longest {found['most']:.0f}"
        )
    copies = card["duplicates"]
    yield (
        f"exact copies: {copies['within']} within a client, {copies['across']} across clients, "
        f"{copies['own_test'] + copies['others_test'] + copies['test']} between training and test"
    )
    yield f"can train: {', '.join(card['tasks'])} (model.task)"


def _clients(card: Mapping[str, Any]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("client")
    labelled = card["labels"] is not None
    for title in ("training rows", "held out", *(["labels"] if labelled else []), "characters"):
        table.add_column(title, justify="right")
    for name, one in list(card["clients"].items())[:SHOWN]:
        middle = "–" if one["characters"] is None else f"{one['characters']:.0f}"
        cells = [one["train"], one["test"], *([one["labels"]] if labelled else []), middle]
        table.add_row(name, *map(str, cells))
    return table


def _labels(labels: Mapping[str, Any]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("label")
    table.add_column("rows", justify="right")
    rows = list(labels["rows"].items())
    for label, count in rows[:SHOWN]:
        table.add_row(label, str(count))
    if len(rows) > SHOWN:
        rest = sum(count for _, count in rows[SHOWN:])
        table.add_row(f"{len(rows) - SHOWN} more", str(rest))
    return table


def _spread(labels: Mapping[str, Any]) -> str:
    each = labels["of_a_client"]
    return (
        f"a client has {each['least']:.0f} to {each['most']:.0f} labels, {each['median']:.0f} in "
        f"the middle; skew {labels['skew']:.2f} (0: clients alike, 1: nothing in common)"
    )
