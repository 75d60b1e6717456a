"""What a server's noise rests on: everything that leaves a client is bounded, or says nothing."""

from __future__ import annotations

from collections.abc import Sequence

from atoll.core.parts import Aggregator, ClientWork, Server, Stage
from atoll.errors import CompositionError

__all__ = ["check_noised"]

WEIGHT = "weight"


def check_noised(
    name: str, client: ClientWork, stages: Sequence[Stage], aggregator: Aggregator, server: Server
) -> None:
    """Refuse parts of algorithm `name` beside which the noise of `server` would hide no client.

    Raises:
        CompositionError: names both parts and the reason.
    """
    if not server.noised:
        return
    for stage in stages:
        if stage.weighs == "examples":
            raise CompositionError(
                f"stage '{stage.name}' weighs clients by examples, so that no bound holds for the "
                f"share of one, which the noise of server '{server.name}' hides; use stage "
                "'uniform'"
            )
    if not aggregator.undivided:
        raise CompositionError(
            f"aggregator '{aggregator.name}' divides by what came, which tells who answered, and "
            f"the noise of server '{server.name}' hides one client's share of a sum only; use "
            "'on_grid'"
        )
    bounds = _bounds(client, stages)
    for channel in client.channels:
        hidden = channel in server.noised and bounds.get(channel, False)
        if hidden or _says_nothing(channel, stages):
            continue
        why = (
            "has no bound on its L2 norm after the last stage; put 'clip' there"
            if channel in server.noised
            else "leaves clients as it is; use an algorithm that sends an update alone, as 'fedavg'"
        )
        raise CompositionError(
            f"channel '{channel}' of client work '{client.name}' {why}: the noise of server "
            f"'{server.name}' would not hide it (algorithm '{name}')"
        )


def _bounds(client: ClientWork, stages: Sequence[Stage]) -> dict[str, bool]:
    """Channels, and whether they are bounded when all stages are through."""
    found: dict[str, float | None] = dict.fromkeys(client.bounded, 0.0)
    for stage in stages:
        for channel in stage.channels:
            found[channel] = stage.bound(found.get(channel))
    return {channel: bound is not None for channel, bound in found.items()}


def _says_nothing(channel: str, stages: Sequence[Stage]) -> bool:
    if channel == WEIGHT:
        return any(stage.weighs == "uniform" for stage in stages)
    return any(stage.blanks and channel in stage.channels for stage in stages)
