"""One look at every client, one at a time: counts, label names and the fingerprint are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from atoll.data.labels import LabelSet, labels_of
from atoll.data.moments import Moments, moments_of
from atoll.data.rows import RowKind, is_labelled
from atoll.data.tables import Row, Table
from atoll.errors import DataError

__all__ = ["ClientCount", "Scan", "Share", "digest_of", "scan"]


@dataclass(frozen=True)
class Share:
    """One client's rows; `held_out`: its test rows were taken from its own training rows.

    why: without rows, the reason.   train_file, test_file: where the rows stand, without them.
    """

    train: list[Row]
    test: list[Row]
    held_out: bool
    kind: RowKind | None
    why: str = "no training rows"
    train_file: Table | None = None
    test_file: Table | None = None


@dataclass(frozen=True)
class ClientCount:
    """What the summary says of one client: rows of each split, different labels in training."""

    train: int
    test: int
    labels: int


@dataclass(frozen=True)
class Scan:
    """What is known of a federation after the look.

    skipped: clients without rows, and why.   test_labels: those of test files.
    moments: of the training labels, where these are numbers to predict.
    digests: of each client's rows.
    """

    kind: RowKind
    counts: Mapping[str, ClientCount]
    skipped: Mapping[str, str]
    train_labels: LabelSet
    test_labels: Mapping[str, LabelSet]
    fingerprint: str
    digests: Mapping[str, bytes]
    moments: Moments | None = None


def scan(names: Iterable[str], read: Callable[[str], Share], *, numeric: bool = False) -> Scan:
    """Read each client once; at most one client's rows are in memory.

    numeric: labels are numbers to predict, whatever they look like.
    """
    counts: dict[str, ClientCount] = {}
    skipped: dict[str, str] = {}
    test_labels: dict[str, LabelSet] = {}
    first: tuple[str, Share, RowKind] | None = None
    known, tested, moments = LabelSet(), LabelSet(), Moments()
    digests: dict[str, bytes] = {}
    for name in names:
        share = read(name)
        if not share.train or share.kind is None:
            skipped[name] = share.why
            continue
        # What is kept of the first client are its files, not its rows.
        first = first or (name, replace(share, train=[], test=[]), share.kind)
        _same_kind(name, share, share.kind, first)
        # A held-out row's label is in the client's own training file, so it belongs to the map.
        train, test = _labels(share.train, share.kind), _labels(share.test, share.kind)
        own = train.union(test) if share.held_out else train
        known = known.union(own)
        if numeric and "label" in share.kind:
            moments = moments.union(_moments(name, share))
        # Only names not met before are kept, so that memory does not grow with the clients.
        fresh = LabelSet() if share.held_out else test.without(tested)
        if fresh.names:
            test_labels[name] = fresh
            tested = tested.union(fresh)
        counts[name] = ClientCount(len(share.train), len(share.test), len(train.names))
        digests[name] = digest_of({"client": name, "train": share.train, "test": share.test})
    if first is None:
        raise DataError(_nobody(skipped))
    numbers = moments if moments.count else None
    whole = hashlib.sha256(b"".join(digests.values())).hexdigest()
    return Scan(first[2], counts, skipped, known, test_labels, whole, digests, numbers)


def _moments(name: str, share: Share) -> Moments:
    try:
        if share.held_out:
            moments_of(share.test)
        return moments_of(share.train)
    except DataError as error:
        raise DataError(f"Client {name}{_in(share)}: {error}") from None


def _labels(rows: Sequence[Row], kind: RowKind) -> LabelSet:
    return labels_of(rows) if is_labelled(kind) else LabelSet()


def digest_of(value: Mapping[str, str | Sequence[Row]]) -> bytes:
    """sha256 over names and rows; an image counts by its content, not by its path."""
    digest = hashlib.sha256()
    for key, part in value.items():
        rows = [{"": part}] if isinstance(part, str) else part
        digest.update(f"{key} {len(rows)}\n".encode())
        for row in rows:
            digest.update(json.dumps(_content(row), sort_keys=True, default=_plain).encode())
    return digest.digest()


def _content(row: Row) -> Row:
    image = row.get("image")
    if not isinstance(image, str):
        return row
    try:
        return {**row, "image": Path(image).read_bytes()}
    except (OSError, ValueError):  # a column of rows that are read for something else
        return row


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, np.ndarray):
        return [list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    return str(value)  # dates and decimals of Parquet


def _same_kind(name: str, share: Share, kind: RowKind, first: tuple[str, Share, RowKind]) -> None:
    if kind == first[2]:
        return
    columns = sorted(set(first[2].split("/")).symmetric_difference(kind.split("/")))
    raise DataError(
        f"The rows of client {name}{_in(share)} are {kind} rows, those of client {first[0]}"
        f"{_in(first[1])} are {first[2]} rows; they differ in "
        f"{', '.join(f'`{name}`' for name in columns)}, and every client needs the same columns."
    )


def _in(share: Share) -> str:
    return f" ({share.train_file.origin})" if share.train_file else ""


def _nobody(skipped: Mapping[str, str]) -> str:
    who = ", ".join(f"{name}: {why}" for name, why in list(skipped.items())[:8])
    who += f", and {len(skipped) - 8} more" if len(skipped) > 8 else ""
    return f"No client has a training row ({who or 'there are no clients'}); add training rows."
