"""What a card says of the rows that its model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atoll.words import counted

__all__ = ["hides_clients", "rows_told", "table"]

Facts = Mapping[str, Any]

_NAMED = 40


def hides_clients(experiment: Facts) -> bool:
    """Whether the file asks to hide what single clients have."""
    privacy = experiment.get("privacy") or {}
    promised = privacy.get("epsilon") is not None or privacy.get("noise_multiplier") is not None
    return bool(privacy.get("secure_aggregation") or (promised and privacy["unit"] == "client"))


def rows_told(data: Facts, *, hidden: bool) -> str:
    """How many rows there were; hidden: not at which client."""
    kind, clients = str(data["kind"]).replace("/", " and "), data["clients"]
    common = (
        "" if data["test"] is None else f", {counted(data['test'], 'row')} in a common test set"
    )
    labels = "" if data["labels"] is None else f" Labels: {data['labels']}."
    skipped = len(data["skipped"])
    left = f" {counted(skipped, 'client')} without rows took no part." if skipped else ""
    of = (
        f"{counted(data['train'], 'training row')} and {counted(data['own_test'], 'held-out row')}"
        if data["train"]
        else "as many as each keeps to itself"
    )
    said = f"Rows of {kind}: {of} at {counted(len(clients), 'client')}{common}.{labels}{left}"
    if hidden or not data["train"]:
        return said
    rows = [(_cell(name), str(c["train"]), str(c["test"])) for name, c in clients.items()]
    listed = table(rows[:_NAMED], header=("client", "training rows", "held-out rows"))
    more = len(rows) - _NAMED
    tail = f"\n\n… and {counted(more, 'more client')}." if more > 0 else ""
    return f"{said}\n\n{listed}{tail}"


def table(rows: Sequence[tuple[str, ...]], header: tuple[str, ...] = ("", "")) -> str:
    """In Markdown."""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def _cell(text: str) -> str:
    """A client's name, whatever is in it."""
    return " ".join(text.replace("|", "\\|").split())
