"""Class weights and the other terms against label skew, as the experiment file says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from atoll.config import Experiment
from atoll.config.words import did_you_mean
from atoll.data import FederatedData, Row
from atoll.errors import ConfigError
from atoll.models.classification import Weights, class_terms
from atoll.models.objective import Example
from atoll.tree import Tree
from atoll.words import listed

__all__ = ["class_weights", "label_counts", "skew_terms"]


def skew_terms(
    experiment: Experiment, data: FederatedData, labels: Sequence[str]
) -> Callable[[Sequence[Example]], Tree]:
    """The terms of a client's loss."""
    return class_terms(
        len(labels),
        restricted=experiment.train.restricted,
        logit_adjustment=experiment.train.logit_adjustment,
        weights=class_weights(experiment, data, labels),
    )


def class_weights(experiment: Experiment, data: FederatedData, labels: Sequence[str]) -> Weights:
    """How classes weigh; `balanced` is n / (C · n_c) of all clients' training rows, or words.

    C counts the classes that have any: on average a row weighs 1.

    Raises:
        ConfigError: for a weight of something that is no label.
    """
    wanted = experiment.train.class_weights
    if experiment.train.class_balance or wanted == "balanced-per-client":
        return "balanced-per-client"
    if wanted is None or isinstance(wanted, Mapping):
        return None if wanted is None else _given(wanted, labels)
    counts = Counter(data.label_counts)
    if not counts:
        every = (row for client in data.clients for row in data.rows(client, "train"))
        counts = label_counts(every)
    rows = sum(counts.values())
    return [rows / (len(counts) * counts[label]) if counts[label] else 1.0 for label in labels]


def label_counts(rows: Iterable[Row]) -> Counter[str]:
    """How many rows have each label."""
    return Counter(name for row in rows for name in _names(row))


def _given(wanted: Mapping[str, float], labels: Sequence[str]) -> list[float]:
    unknown = [name for name in wanted if name not in labels]
    if unknown:
        raise ConfigError(
            f"train.class_weights names {unknown[0]}, which is no label of the data"
            f"{did_you_mean(unknown[0], among=labels) or '.'} The labels are {listed(labels)}"
        )
    return [float(wanted.get(label, 1.0)) for label in labels]


def _names(row: Row) -> list[str]:
    """The class of a row, or those of its words."""
    found = row["label"] if row.get("label") is not None else row["tags"]
    return [str(name) for name in found] if isinstance(found, list) else [str(found)]
