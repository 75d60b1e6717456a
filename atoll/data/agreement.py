"""Labels of test rows against those of training rows; a label that does not fit is located."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from atoll.data.labels import (
    LabelSet,
    check_known,
    check_numbers,
    is_number,
    label_map,
    labels_of,
)
from atoll.data.scan import Scan, Share
from atoll.data.tables import Row, Table
from atoll.errors import DataError

__all__ = ["check_labels", "shared_labels"]


def shared_labels(found: Scan, read: Callable[[str], Share]) -> tuple[str, ...] | None:
    """The label map of all clients; None without labels and for decimals.

    Raises:
        DataError: for decimals beside names, with a client that has each.
    """
    try:
        return label_map(found.train_labels)
    except DataError as error:
        decimals = _first(found, read, lambda labels: labels.decimal)
        names = _first(found, read, lambda labels: not all(map(is_number, labels.names)))
        raise DataError(f"{error} Decimals: {decimals}; names: {names}.") from None


def _first(found: Scan, read: Callable[[str], Share], has: Callable[[LabelSet], bool]) -> str:
    """The first client with such training labels, and its file."""
    for name in found.counts:
        share = read(name)
        if has(labels_of(_own(share))):
            return _called(name, share)
    raise AssertionError("labels come from clients")


def _own(share: Share) -> list[Row]:
    """The rows of a client's training file."""
    return [*share.train, *(share.test if share.held_out else [])]


def _called(name: str, share: Share) -> str:
    return f"client {name}" + (f" ({share.train_file.origin})" if share.train_file else "")


def check_labels(
    found: Scan,
    common: Mapping[str, tuple[Sequence[Row], Table | None]],
    shared: tuple[str, ...] | None,
    *,
    given: bool,
    read: Callable[[str], Share],
) -> None:
    """Refuse labels that the map does not have; without a map, those that are no numbers.

    common: rows of the common sets and where they stand, by what they are called.
    """

    def check(labels: LabelSet, where: str) -> None:
        if shared is None:
            check_numbers(labels, where=where)
        else:
            check_known(shared, labels, where=where, given=given)

    if given and shared is not None and found.train_labels.names.difference(shared):
        for name in found.counts:
            share = read(name)
            file = f" ({share.train_file.origin})" if share.train_file else ""
            check(labels_of(_own(share)), f"Client {name}, training rows{file}")
    for name, labels in found.test_labels.items():
        if not _fits(labels, shared):
            share = read(name)
            at = _at(share.test, f"Client {name}, test rows", share.test_file, shared)
            check(labels_of(share.test), at)
    for name, (rows, places) in common.items():
        if not _fits(labels_of(rows), shared):
            check(labels_of(rows), _at(rows, name, places, shared))


def _fits(labels: LabelSet, shared: tuple[str, ...] | None) -> bool:
    if shared is None:
        return all(map(is_number, labels.names))
    return labels.names.issubset(shared)


def _at(rows: Sequence[Row], what: str, file: Table | None, shared: tuple[str, ...] | None) -> str:
    """What the rows are called, and where the first label that does not fit stands."""
    if file is None:
        return what
    wrong = (i for i, row in enumerate(rows) if not _fits(labels_of([row]), shared))
    return f"{what} ({file.where(next(wrong))})"
