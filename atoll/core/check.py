"""Compositions are checked from declared facts, when they are built."""

from __future__ import annotations

from collections.abc import Sequence

from atoll.core.parts import Aggregator, ClientWork, Stage
from atoll.errors import CompositionError

__all__ = ["HIDING", "check", "check_order"]

HIDING = 6
"""Clients whose sum says little enough of each, also when one stops, for groups that are summed by
themselves."""


def check(name: str, client: ClientWork, stages: Sequence[Stage], aggregator: Aggregator) -> None:
    """Refuse the parts of algorithm `name` that do not fit each other.

    Raises:
        CompositionError: names both parts and the reason.
    """
    _check_channels(name, client, stages)
    _check_values(client, stages)
    weighing = [stage for stage in stages if stage.weighs]
    if len(weighing) > 1:
        raise CompositionError(
            f"stages '{weighing[0].name}' and '{weighing[1].name}' both set the weights of "
            f"'{name}'; keep one"
        )
    if weighing and weighing[0].weighs == "examples" and not aggregator.weighted:
        raise CompositionError(
            f"stage '{weighing[0].name}' weighs clients by examples, which aggregator "
            f"'{aggregator.name}' ignores; use stage 'uniform'"
        )
    if not aggregator.linear:
        _check_closer_look(client, stages, aggregator)
    check_order(stages)


def _check_closer_look(client: ClientWork, stages: Sequence[Stage], aggregator: Aggregator) -> None:
    """An aggregator that compares replies has to see them, and all that they can change."""
    own = aggregator.group == 1
    for stage in stages:
        if stage.sums_only and not own and stage.group == aggregator.group:
            continue
        if stage.sums_only and own:
            groups = (
                "a rule over the sums of groups, each under masks of its own: {name: grouped, "
                f"size: {HIDING}, rule: median}}, with groups larger than min_survivors, so that "
                "one may stop"
            )
            raise CompositionError(
                f"aggregator '{aggregator.name}' looks at single updates, which stage "
                f"'{stage.name}' hides: the server learns one sum, and cannot tell whose update "
                f"spoils it; use a mean{'' if stage.never_groups else f', or {groups}'}"
            )
        if stage.sums_only or stage.decode_at == "sum":
            needs = "each reply" if own else f"the sum of each group of {aggregator.group}"
            raise CompositionError(
                f"stage '{stage.name}' gives one sum of all replies, but aggregator "
                f"'{aggregator.name}' needs {needs} by itself; use a mean"
            )
    if client.rescaled:
        raise CompositionError(
            f"aggregator '{aggregator.name}' limits what one client changes, but client work "
            f"'{client.name}' divides channel '{client.rescaled[0]}' by a number that the server "
            "multiplies it with again, and that number has no limit; use 'fedavg'"
        )
    if client.kept:
        raise CompositionError(
            f"aggregator '{aggregator.name}' limits what one client changes through channel "
            f"'update', but client work '{client.name}' sends '{client.kept[0]}' too, of which the "
            "server takes a mean that any one client moves as far as it likes; use 'fedavg'"
        )


def _check_channels(name: str, client: ClientWork, stages: Sequence[Stage]) -> None:
    seen: set[str] = set()
    sent = list(client.channels)
    for stage in stages:
        if stage.name in seen:
            raise CompositionError(f"stage '{stage.name}' stands twice in '{name}'")
        seen.add(stage.name)
        for channel in stage.channels:
            if channel not in sent:
                raise CompositionError(
                    f"stage '{stage.name}' treats channel '{channel}', which client work "
                    f"'{client.name}' does not send; it sends " + ", ".join(sent)
                )
        if stage.weighs and "weight" not in sent:
            sent.append("weight")


def _check_values(client: ClientWork, stages: Sequence[Stage]) -> None:
    """What client work and server do with a channel's values may rule out changing them."""
    for stage in stages:
        for channel in stage.channels:
            if stage.lossy and channel in client.kept:
                raise CompositionError(
                    f"stage '{stage.name}' changes the values of channel '{channel}', but client "
                    f"work '{client.name}' goes on from those that it had, so that client and "
                    f"server drift apart for good; leave '{channel}' out of its channels"
                )
            if stage.bound(None) is not None and channel in client.rescaled:
                raise CompositionError(
                    f"stage '{stage.name}' bounds channel '{channel}', but client work "
                    f"'{client.name}' divides it by a number that the server multiplies it with "
                    "again, so that nothing bounds what is applied; leave the stage out, or use "
                    "'fedavg'"
                )


def check_order(stages: Sequence[Stage]) -> None:
    """Refuse stages that do not fit behind each other; see `check`."""
    bounds: dict[str, float | None] = {}
    for index, stage in enumerate(stages):
        for earlier in stages[:index]:
            shared = set(earlier.channels) & set(stage.channels)
            if not shared:
                continue
            if stage.dense_floats and earlier.packs:
                # What seals a payload comes last, whatever a file says.
                remedy = (
                    f"leave '{earlier.name}' out"
                    if stage.sealing
                    else (f"put '{stage.name}' first")
                )
                raise CompositionError(
                    f"stage '{stage.name}' reads plain values, but '{earlier.name}' before it has "
                    f"packed them; {remedy}"
                )
            if stage.sums_only and earlier.data_support:
                raise CompositionError(
                    f"stage '{stage.name}' adds payloads of one shape, but '{earlier.name}' sends "
                    "values whose places depend on the data; leave one of them out"
                )
        for channel in stage.channels:
            if stage.needs_bound and bounds.get(channel) is None:
                raise CompositionError(
                    f"stage '{stage.name}' needs a bound on the L2 norm of channel '{channel}', "
                    "and no stage before it gives one; put 'clip' before it"
                )
            bounds[channel] = stage.bound(bounds.get(channel))
