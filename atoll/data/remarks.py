"""What to look at in rows before anything trains on them, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["remarks"]

FEW = 5
"""Rows of a label below which little can be learnt of it, or measured."""
SMALL = 10
"""Rows of a client below which its own results say little."""
UNEVEN = 20
SKEWED = 0.5


def remarks(card: Mapping[str, Any]) -> list[str]:
    """Of a card of `atoll.data.report`."""
    return [*_copies(card), *_texts(card), *_labels(card), *_clients(card)]


def _copies(card: Mapping[str, Any]) -> Iterator[str]:
    found = card["duplicates"]
    tested = {"own_test": card["own_test"], "others_test": card["own_test"], "test": card["test"]}
    where = {
        "own_test": "clients' test rows stand in their own training rows too",
        "others_test": "clients' test rows stand in another client's training rows",
        "test": "rows of the common test set stand in training rows",
    }
    for name, words in where.items():
        if found[name]:
            yield (
                f"{found[name]} of {tested[name]} {words}: what is measured on them is too good; "
                "remove them from one side"
            )
    if found["within"]:
        yield (
            f"{found['within']} of {card['train']} training rows repeat another of their client: "
            "it counts as often as it stands there"
        )
    if found["across"]:
        yield (
            f"{found['across']} of {card['train']} training rows stand at another client as well"
        )
    if found["other_label"]:
        yield (
            f"{found['other_label']} of {card['train']} training rows have the content of another "
            "row under another label; correct one of the two"
        )


def _texts(card: Mapping[str, Any]) -> Iterator[str]:
    if card["empty"]:
        yield f"{card['empty']} of {card['train']} training rows hold no text; remove them"
    if card["short"]:
        yield f"{card['short']} of {card['train']} training rows have three characters or fewer"


def _labels(card: Mapping[str, Any]) -> Iterator[str]:
    labels = card["labels"]
    if labels is None:
        return
    rare = [label for label, count in labels["rows"].items() if count < FEW]
    if rare:
        named = ", ".join(rare[:FEW]) + (f" and {len(rare) - FEW} more" if len(rare) > FEW else "")
        yield f"{len(rare)} of {labels['number']} labels have fewer than {FEW} rows: {named}"
    if labels["imbalance"] > UNEVEN:
        yield (
            f"the most frequent label has {labels['imbalance']:.0f} times the rows of the rarest; "
            "macro-F1 tells more than accuracy, and data.class_weights: balanced weighs them alike"
        )
    if labels["skew"] > SKEWED and card["num_clients"] > 1:
        yield (
            f"labels differ much between clients (skew {labels['skew']:.2f} of 1): a head that is "
            "solved from statistics (adapter.head: lda or ridge) does not mind"
        )


def _clients(card: Mapping[str, Any]) -> Iterator[str]:
    small = [name for name, one in card["clients"].items() if one["train"] < SMALL]
    if small:
        yield f"{len(small)} of {card['num_clients']} clients have fewer than {SMALL} training rows"
    if not card["own_test"] and card["test"] is None:
        yield "there are no test rows: a run keeps a share of each client's rows to measure with"
