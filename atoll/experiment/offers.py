"""From a client's rows to its offer, and from all offers to what is agreed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version

import torch

from atoll.config import Experiment
from atoll.data import ClientCount, FederatedData, RowKind
from atoll.data.labels import LabelSet, label_map
from atoll.data.moments import Moments
from atoll.data.scan import Scan, Share
from atoll.errors import DataError
from atoll.experiment.rows import UNNAMED
from atoll.experiment.stand_in import stand_in
from atoll.experiment.terms import Agreed, Offer, Sums
from atoll.runtimes.messages import PROTOCOL
from atoll.tasks.skew import label_counts

__all__ = [
    "agreed",
    "counts_of",
    "offer_of",
    "server_data",
    "silent",
    "versions",
]


def counts_of(offers: Mapping[str, Offer]) -> dict[str, ClientCount]:
    """Rows and labels of each client, as it told them."""
    return {
        name: ClientCount(offer.train, offer.test, len(offer.labels or ()))
        for name, offer in sorted(offers.items())
    }


def versions() -> dict[str, str]:
    """Those on which the bits of a result depend."""
    return {"protocol": str(PROTOCOL), "atoll": version("atoll"), "torch": torch.__version__}


def silent(offer: Offer, *, rows: bool) -> Offer:
    """The offer of a client whose rows nothing may tell of.

    rows: but for how many there are, which is no secret where each of them is hidden by itself.
    """
    blank = {"labels": None, "decimal": False} | ({} if rows else {"train": 0, "test": 0})
    return offer.model_copy(update={**blank, "moments": None, "label_counts": None})


def offer_of(client: str, found: Scan, share: Share | None, *, names: bool) -> Offer:
    """A client's offer.

    share: its rows, where labels are to be counted.   names: whether those of labels are told.
    """
    count, moments, labels = found.counts[client], found.moments, found.train_labels
    return Offer(
        versions=versions(),
        kind=found.kind,
        train=count.train,
        test=count.test,
        labels=tuple(sorted(labels.names)) if names else None,
        decimal=names and labels.decimal,
        moments=None if moments is None else Sums(
            count=moments.count, mean=moments.mean, square=moments.square
        ),
        label_counts=None if share is None else dict(label_counts(share.train)),
    )  # fmt: skip


def agreed(experiment: Experiment, offers: Mapping[str, Offer], base: str) -> Agreed:
    """What follows from the clients' offers, as if their rows had been looked at in one place.

    Raises:
        DataError: rows of different kinds, or labels of which nobody told the names.
    """
    names = sorted(offers)
    kinds: dict[RowKind, str] = {}
    for name in names:
        kinds.setdefault(offers[name].kind, name)
    if len(kinds) > 1:
        told = ", ".join(f"{kind} rows of {name}" for kind, name in kinds.items())
        raise DataError(f"clients hold rows of different kinds ({told}); give them one form")
    moments, counts, known = Moments(), Counter[str](), LabelSet()
    for name in names:
        offer = offers[name]
        if offer.moments is not None:
            own = offer.moments
            moments = moments.union(Moments(own.count, own.mean, own.square))
        counts.update(offer.label_counts or {})
        known = known.union(LabelSet(frozenset(offer.labels or ()), offer.decimal))
    (kind,) = kinds
    return Agreed(
        kind=kind,
        labels=_labels(experiment, offers, known, kind),
        moments=Sums(count=moments.count, mean=moments.mean, square=moments.square)
        if moments.count else None,
        label_counts=dict(counts) or None,
        base=base,
    )  # fmt: skip


def _labels(
    experiment: Experiment, offers: Mapping[str, Offer], known: LabelSet, kind: RowKind
) -> tuple[str, ...] | None:
    if experiment.data.labels is not None:
        return tuple(experiment.data.labels)
    untold = sorted(name for name, offer in offers.items() if offer.labels is None)
    if untold and ("label" in kind or "tags" in kind):
        if experiment.privacy.hides:
            raise DataError(UNNAMED)
        raise DataError(
            f"{untold[0]} does not tell the names of its labels (policy rule 'label_names'); list "
            "all labels in data.labels of the experiment file"
        )
    return label_map(known)


def server_data(
    experiment: Experiment, offers: Mapping[str, Offer], found: Agreed
) -> FederatedData:
    """The federation as its server sees it: counts of every client, and a made-up row."""
    labels = found.labels
    made = stand_in(experiment, labels, found.kind)
    digest = hashlib.sha256("".join(offers[n].model_dump_json() for n in sorted(offers)).encode())
    moments = found.moments
    return replace(
        made,
        clients=tuple(sorted(offers)),
        kind=found.kind,
        fingerprint=digest.hexdigest(),
        counts=counts_of(offers),
        moments=None if moments is None else Moments(moments.count, moments.mean, moments.square),
        label_counts=found.label_counts,
    )
