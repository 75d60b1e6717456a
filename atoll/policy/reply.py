"""What a site would send, held against its policy before a byte of it leaves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from atoll.config.tasks import TASKS, TaskName
from atoll.errors import PolicyError
from atoll.policy.names import STATISTICS, may_leave
from atoll.policy.schema import Policy

if TYPE_CHECKING:
    # Reading a policy does not wait for torch.
    from atoll.core import Channel, Payload

__all__ = ["check_names", "check_reply", "released", "without_metrics"]

METRICS = "metrics"
SEALED = ("encrypted", "masked", "message")
"""Channels of secure sums: vectors that nobody can read, and what clients say to agree on them."""
COUNTS = ("examples", "weight", "steps")
"""Channels of one number: rows, what a client weighs, its local steps."""


def check_reply(
    policy: Policy,
    payload: Payload,
    *,
    nbytes: int,
    task: TaskName | None = None,
    sealed: bool = False,
) -> None:
    """Refuse a reply as it would leave: encoded by every stage, as `released` gives it.

    nbytes: of the message; never taken for less than its values have.
    task: None is treated as one whose metrics count labels.
    sealed: whether the run's updates leave masked, in a channel that says nothing by itself; what
        is under the masks was checked when the run was joined.

    Raises:
        PolicyError: with the first rule that is broken.
    """
    values = (value for channel in payload.values() for value in channel.tree.values())
    whole = max(nbytes, sum(value.nbytes for value in values))
    if whole > policy.max_payload:
        raise PolicyError(
            "max_payload",
            f"the reply has {whole:,} bytes; this site sends at most {policy.max_payload:,}",
        )
    for name, channel in payload.items():
        if sealed and name in SEALED:
            continue
        if name == METRICS:
            _check_metrics(policy, channel, task)
        elif name == STATISTICS and not policy.label_histograms:
            raise PolicyError("label_histograms", "head statistics hold counts or sums by label")
        elif name not in COUNTS or not _one_number(channel):
            check_names(policy, name, channel.tree)


def released(policy: Policy, payload: Payload, *, task: TaskName | None = None) -> Payload:
    """The reply with its metrics left blank where a rule holds them back; else as it is.

    Raises:
        PolicyError: when they cannot be left blank.
    """
    held = METRICS in payload and _held_back(policy, payload[METRICS], task)
    return without_metrics(payload) if held else payload


def without_metrics(payload: Payload) -> Payload:
    """The same channels, shapes and dtypes, with metrics that count for nothing.

    Sums of metrics become zeros, as those of a client without held-out rows are. A mean of them is
    weighed by zero: the channel that weighs it (`examples`) becomes zero too, while `weight`, which
    weighs the update, stays.

    Raises:
        PolicyError: when another channel is weighed by the same number.
    """
    if METRICS not in payload:
        return payload
    blank = {METRICS}
    if payload[METRICS].reduce == "mean":
        weight = payload[METRICS].weight
        weighed = [name for name, one in payload.items() if one.weight == weight]
        if weight is None or weighed != [METRICS]:
            raise PolicyError(
                METRICS,
                "metrics may not leave this site, and this algorithm weighs them as it weighs the "
                "update, so that they cannot be left out alone; use one of Atoll's own",
            )
        blank.add(weight)
    return {
        name: one.with_tree({key: value.new_zeros(value.shape) for key, value in one.tree.items()})
        if name in blank
        else one
        for name, one in payload.items()
    }


def _held_back(policy: Policy, metrics: Channel, task: TaskName | None) -> str | None:
    """The rule that holds metrics back."""
    if not policy.metrics:
        return METRICS
    # Scores of an evaluation are vectors; where a task has labels, they count them.
    counts = any(value.numel() > 1 for value in metrics.tree.values())
    labels = task is None or TASKS[task].head
    return "label_histograms" if counts and labels and not policy.label_histograms else None


def _check_metrics(policy: Policy, metrics: Channel, task: TaskName | None) -> None:
    rule = _held_back(policy, metrics, task)
    if rule and any(bool(value.any()) for value in metrics.tree.values()):
        what = "metrics may not leave this site"
        if rule != METRICS:
            what = "these metrics count rows by label, and such counts may not leave this site"
        raise PolicyError(rule, what)


def check_names(policy: Policy, name: str, keys: Iterable[str]) -> None:
    """Refuse tensors of channel `name` that may not leave this site.

    Raises:
        PolicyError: with the first of them.
    """
    for key in keys:
        if not may_leave(key, policy.tensors, channel=name):
            raise PolicyError(
                "tensors",
                f"channel '{name}' holds {key}, which may not leave this site; what may: "
                f"{', '.join(policy.tensors)}",
            )


def _one_number(channel: Channel) -> bool:
    return sum(value.numel() for value in channel.tree.values()) == 1
