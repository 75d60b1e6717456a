"""A federation's data: who has rows, the shared label map, each client's rows when asked for."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from atoll.data.agreement import check_labels, shared_labels
from atoll.data.labels import numbers
from atoll.data.moments import Moments
from atoll.data.rows import RowKind, nearest
from atoll.data.scan import ClientCount, Scan, Share, digest_of, scan
from atoll.data.tables import Row, Table
from atoll.errors import DataError

__all__ = ["ClientCount", "Common", "FederatedData", "Split", "federate"]

Split = Literal["train", "test"]
RESIDENT = 8  # clients whose rows stay in memory after they were asked for


@dataclass(frozen=True)
class Common:
    """Rows that belong to no client, of the clients' kind; `files`: where each split stands."""

    kind: RowKind | None = None
    test: list[Row] | None = None
    val: list[Row] | None = None
    files: Mapping[str, Table] = field(default_factory=dict)


@dataclass(frozen=True)
class FederatedData:
    """The clients with training rows and what they share; rows are read when they are asked for.

    reasons: why each of the skipped clients was.
    moments: of all training labels, where these are numbers to predict.
    label_counts: training rows of each label over all clients, where someone counted them.
    whole: whether all clients' rows can be read here; else only those of one client.
    made_up: whether no client's can: rows are a stand-in, by which a model is built.
    collected: whether the label map is of what stands in clients' rows.
    """

    clients: tuple[str, ...]
    skipped: tuple[str, ...]
    kind: RowKind
    labels: tuple[str, ...] | None
    fingerprint: str
    counts: Mapping[str, ClientCount]
    _read: Callable[[str], Share] = field(repr=False)
    _common: Common = field(repr=False)
    reasons: Mapping[str, str] = field(default_factory=dict)
    moments: Moments | None = None
    label_counts: Mapping[str, int] | None = None
    whole: bool = True
    made_up: bool = False
    collected: bool = False

    def rows(self, client: str, split: Split) -> list[Row]:
        """One client's training rows, or its own held-out rows."""
        if client not in self.counts:
            raise DataError(
                f"There is no client `{client}` with training rows{nearest(client, self.clients)}."
            )
        share = self._read(client)
        return list(share.train if split == "train" else share.test)

    def without(self, clients: Collection[str], reason: str) -> FederatedData:
        """The same data without some clients, which are skipped for a reason."""
        return replace(
            self,
            clients=tuple(name for name in self.clients if name not in clients),
            counts={name: count for name, count in self.counts.items() if name not in clients},
            skipped=(*self.skipped, *clients),
            reasons={**self.reasons, **dict.fromkeys(clients, reason)},
        )

    def counting(self, usable: Mapping[str, int]) -> FederatedData:
        """The same data, of which a task uses so many of each client's training rows."""
        counts = {name: replace(one, train=usable[name]) for name, one in self.counts.items()}
        return replace(self, counts=counts)

    def test(self) -> list[Row] | None:
        """The common test set, where there is one."""
        return None if self._common.test is None else list(self._common.test)

    def val(self) -> list[Row] | None:
        """The common validation set, where there is one."""
        return None if self._common.val is None else list(self._common.val)

    def card(self) -> dict[str, Any]:
        """Counts for people and for the run directory; no row, and no label of a single client.

        None for how many rows there are, where clients keep that to themselves.
        """
        test, val = self._common.test, self._common.val
        counts = [self.counts[name] for name in self.clients]
        told = any(count.train for count in counts)
        return {
            "kind": self.kind,
            "num_clients": len(self.clients),
            "clients": {name: asdict(self.counts[name]) if told else None for name in self.clients},
            "skipped": list(self.skipped),
            "labels": None if self.labels is None else len(self.labels),
            "train": sum(count.train for count in counts) if told else None,
            "own_test": sum(count.test for count in counts) if told else None,
            "test": None if test is None else len(test),
            "val": None if val is None else len(val),
            "fingerprint": self.fingerprint,
        }


def federate(
    names: Iterable[str],
    read: Callable[[str], Share],
    *,
    common: Common,
    labels: Sequence[str] | None = None,
) -> FederatedData:
    """Look at every client once and check what only the whole federation can show.

    labels: the label map; None: what clients have; empty: labels are numbers to predict.
    """
    numeric = labels is not None and not labels
    found = scan(sorted(names), read, numeric=numeric)
    _check_kind(common, found.kind)
    if numeric and found.moments is None:
        labels = None
    shared = shared_labels(found, read) if labels is None else tuple(labels) or None
    if found.train_labels.names:
        check_labels(found, _by_name(common), shared, given=labels is not None, read=read)
    # Labels without a map are numbers to predict.
    finish = numbers if found.train_labels.names and shared is None else list[Row]

    def finished(name: str) -> Share:
        share = read(name)
        _check_unchanged(name, share, found)
        return Share(finish(share.train), finish(share.test), share.held_out, share.kind)

    content = {"test": common.test or [], "val": common.val or []}
    return FederatedData(
        clients=tuple(found.counts),
        skipped=tuple(found.skipped),
        reasons=found.skipped,
        kind=found.kind,
        labels=shared if found.train_labels.names else None,
        collected=labels is None and bool(found.train_labels.names),
        moments=found.moments,
        fingerprint=hashlib.sha256(found.fingerprint.encode() + digest_of(content)).hexdigest(),
        counts=found.counts,
        _read=functools.lru_cache(maxsize=RESIDENT)(finished),
        _common=Common(
            kind=found.kind,
            test=None if common.test is None else finish(common.test),
            val=None if common.val is None else finish(common.val),
        ),
    )


def _check_kind(common: Common, kind: RowKind) -> None:
    if common.kind not in (None, kind):
        files = ", ".join(file.origin for file in common.files.values())
        raise DataError(
            f"The common test set{f' ({files})' if files else ''} has {common.kind} rows, the "
            f"clients have {kind} rows; give them the same columns."
        )


def _check_unchanged(name: str, share: Share, found: Scan) -> None:
    """Refuse rows that are no longer those of the first look: results would be of neither."""
    own = digest_of({"client": name, "train": share.train, "test": share.test})
    if own != found.digests[name]:
        where = f" ({share.train_file.origin})" if share.train_file else ""
        raise DataError(
            f"the rows of client {name}{where} have changed since they were first read; put back "
            "what was there, or run the experiment anew on the rows of now"
        )


def _by_name(common: Common) -> dict[str, tuple[list[Row], Table | None]]:
    return {
        "The common test set": (common.test or [], common.files.get("test")),
        "The common validation set": (common.val or [], common.files.get("val")),
    }
