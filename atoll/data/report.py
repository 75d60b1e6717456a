"""What a federation's rows are like: a card for whoever owns them, with what to look at."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from atoll.config.tasks import TASKS, TaskName
from atoll.data.duplicates import content, duplicates
from atoll.data.federation import FederatedData
from atoll.data.rows import RowKind
from atoll.data.tables import Row

__all__ = ["QUANTILES", "SHORT", "characters", "report", "tasks_of"]

SHORT = 3
"""Characters up to which a text hardly says anything."""
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)
_TASKS: Mapping[RowKind, tuple[TaskName, ...]] = {
    "messages": ("causal-lm",),
    "prompt/chosen/rejected": ("preference",),
    "prompt/completion": ("causal-lm",),
    "instruction/output": ("causal-lm",),
    "tokens/tags": ("token-classification",),
    "anchor/positive/negative": ("embedding",),
    "anchor/positive": ("embedding",),
    "image/label": ("image-classification",),
    "image/text": ("embedding",),
    "text/label": ("classification", "causal-lm", "masked-lm"),
    "text": ("causal-lm", "masked-lm"),
}


def report(data: FederatedData) -> dict[str, Any]:
    """The card of `atoll data check`: counts, lengths, labels, copies, and tasks that can train.

    It counts what single clients have, so that it is for whoever has all these rows.
    """
    lengths: dict[str, list[int]] = {}
    labels: dict[str, Counter[str]] = {}
    numbers: list[float] = []
    for client in data.clients:
        rows = data.rows(client, "train")
        known = (characters(row, data.kind) for row in rows)
        lengths[client] = [length for length in known if length is not None]
        given = [label for row in rows for label in _labels_of(row)]
        labels[client] = Counter(label for label in given if isinstance(label, str))
        numbers += [label for label in given if isinstance(label, float)]
    card = data.card()
    flat = [length for own in lengths.values() for length in own]
    return {
        "kind": data.kind,
        **{key: card[key] for key in ("num_clients", "train", "own_test", "test", "val")},
        "clients": {
            name: {**card["clients"][name], "characters": _middle(lengths[name])}
            for name in data.clients
        },
        "skipped": {name: data.reasons.get(name, "no rows") for name in data.skipped},
        "characters": _quantiles(flat),
        "empty": sum(length == 0 for length in flat),
        "short": sum(0 < length <= SHORT for length in flat),
        "labels": _mix(labels) if data.labels is not None else None,
        "numbers": _quantiles(numbers),
        "duplicates": duplicates(data).as_dict(),
        "tasks": list(tasks_of(data)),
        "fingerprint": data.fingerprint,
    }


def characters(row: Row, kind: RowKind) -> int | None:
    """How long the texts of a row are together; None where it has none."""
    found = [length for length in map(_long, content(row, kind).values()) if length is not None]
    return sum(found) if found else None


def _long(value: Any) -> int | None:
    """Of a text, a list of words, or messages; spaces at the ends do not count."""
    if isinstance(value, str):
        return len(value.strip())
    if not isinstance(value, list):
        return None
    texts = [one.get("content") if isinstance(one, dict) else one for one in value]
    return sum(len(text.strip()) for text in texts if isinstance(text, str))


def tasks_of(data: FederatedData) -> tuple[TaskName, ...]:
    """Values of model.task that these rows can train."""
    tasks = _TASKS[data.kind]
    if data.kind == "text/label":
        first: Any = data.rows(data.clients[0], "train")[0]["label"]
        several = isinstance(first, list)
        own: TaskName = "multi-label-classification" if several else "classification"
        tasks = ("regression" if data.labels is None else own, *tasks[1:])
    return tuple(task for task in tasks if task in TASKS)


def _labels_of(row: Row) -> list[Any]:
    value = row.get("label", row.get("tags"))
    return value if isinstance(value, list) else [] if value is None else [value]


def _mix(labels: Mapping[str, Counter[str]]) -> dict[str, Any]:
    """How labels are spread over rows and over clients.

    skew: the mean over clients of half of Σ |client's share − share of all|: 0 alike, 1 apart.
    """
    whole: Counter[str] = sum(labels.values(), Counter())
    total = whole.total()
    shares = {label: count / total for label, count in whole.items()}
    apart = [
        sum(abs(own[label] / own.total() - share) for label, share in shares.items()) / 2
        for own in labels.values()
        if own
    ]
    most, least = max(whole.values()), min(whole.values())
    return {
        "number": len(whole),
        "rows": dict(whole.most_common()),
        "largest_share": most / total,
        "imbalance": most / least,
        "skew": statistics.fmean(apart),
        "of_a_client": _quantiles([len(own) for own in labels.values()]),
    }


def _quantiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    found = np.quantile(values, QUANTILES)
    names = ("least", "low", "median", "high", "most")
    return {"mean": statistics.fmean(values), **dict(zip(names, found.tolist(), strict=True))}


def _middle(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
