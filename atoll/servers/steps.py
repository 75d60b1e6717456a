"""Less than the adapter for a client that has the last one: the step from there, packed.

The server goes where its clients can follow: it takes the step that their stages can unpack, and
what that left out is part of the next one. So all have one adapter, and nothing is lost for good:

    u ← w⁺ − w + e        w⁺: where the server would go from w     e: what was left out so far
    w ← w + C(u)          C: packed and unpacked
    e ← u − C(u)

Source: Tang, Yu, Lian, Zhang, Liu, DoubleSqueeze (ICML 2019, arXiv 1905.05957), Algorithm 1, the
server's half; with C applied to the step of whatever server optimiser there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from atoll.core import (
    Channel,
    Context,
    Downlink,
    Payload,
    Server,
    Stage,
    State,
    Tree,
    check_order,
)
from atoll.errors import ConfigError, HeldError, PayloadError
from atoll.servers.values import ADAPTER
from atoll.tree import digest, finite

__all__ = ["following", "in_steps"]

STEP, UNSENT, TRAIL = "step", "unsent", "trail"
"""Parts of the state: the last step as it travels, what it left out, and where it leads."""
FROM, TO, EXCHANGE = "from", "to", "exchange"
PACKED = "update"
"""The channel that stages pack."""


def in_steps(inner: Server, stages: Sequence[Stage]) -> Server:
    """The server `inner`, whose adapter moves by steps as `stages` pack them.

    Raises:
        ConfigError: a stage that packs nothing, or stages in an order that cannot be.
    """
    for stage in stages:
        if not stage.packs or stage.channels != (PACKED,) or stage.decode_at != "reply":
            raise ConfigError(
                f"stage '{stage.name}' packs nothing that a server sends; valid: quantise, top_k"
            )
    check_order(stages)

    def apply(context: Context, state: State, aggregate: Payload) -> State:
        before, unsent = state[ADAPTER], state.get(UNSENT, {})
        state = inner.apply(context, state, aggregate)
        wanted = {
            name: value.float() - before[name].float() + unsent.get(name, 0.0)
            for name, value in state[ADAPTER].items()
            if value.is_floating_point()
        }
        step = _packed(context, wanted, stages)
        after = _moved(context, before, step, stages)
        trail = {FROM: digest(before), TO: digest(after), EXCHANGE: torch.tensor(context.exchange)}
        left = {name: u - (after[name].float() - before[name].float()) for name, u in
                wanted.items()}  # fmt: skip
        return {**state, ADAPTER: after, STEP: step, UNSENT: left, TRAIL: trail}

    return following(replace(inner, apply=apply), stages)


def following(server: Server, stages: Sequence[Stage]) -> Server:
    """A server that sends what others move by steps; it moves nothing of that itself."""

    def sent(state: State, client: str, answered: int | None) -> Payload:
        payload, trail = server.broadcast(state, client), state.get(TRAIL)
        own = ADAPTER in payload and payload[ADAPTER].tree is state[ADAPTER]
        if trail is None or not own or answered is None or answered < int(trail[EXCHANGE]):
            return payload
        there = answered > int(trail[EXCHANGE])
        return {
            TRAIL: Channel({FROM: trail[FROM], TO: trail[TO]}, "none"),
            STEP: Channel({} if there else state[STEP], "none"),
            **{name: channel for name, channel in payload.items() if name != ADAPTER},
        }

    def received(context: Context, payload: Payload, adapter: Tree | None) -> Payload:
        if TRAIL not in payload:
            return payload
        rest = {name: one for name, one in payload.items() if name not in (TRAIL, STEP)}
        return {ADAPTER: Channel(_followed(context, payload, adapter, stages)), **rest}

    return replace(server, downlink=Downlink(sent, received))


def _followed(
    context: Context, payload: Payload, adapter: Tree | None, stages: Sequence[Stage]
) -> Tree:
    """The adapter that a step leads to."""
    trail, step = payload[TRAIL].tree, payload[STEP].tree if STEP in payload else {}
    if adapter is None or trail.keys() != {FROM, TO}:
        raise HeldError("a step came, and there is no adapter to take it from")
    if not step:
        found = adapter
    elif not torch.equal(digest(adapter), trail[FROM]):
        raise HeldError("a step came from another adapter than the one that is here")
    else:
        found = _moved(context, adapter, step, stages)
    if not torch.equal(digest(found), trail[TO]):
        raise HeldError("a step came that does not lead where it should")
    return found


def _packed(context: Context, wanted: Tree, stages: Sequence[Stage]) -> Tree:
    payload = {PACKED: Channel(wanted)}
    for stage in stages:
        # What it leaves out is kept here, for all stages together.
        payload, _ = stage.encode(context, payload, {})
    return payload[PACKED].tree


def _moved(context: Context, adapter: Tree, step: Tree, stages: Sequence[Stage]) -> Tree:
    """The adapter after a packed step: the same bits at the server and at its clients."""
    like: Payload = {PACKED: Channel({name: value.float() for name, value in adapter.items() if
                                      value.is_floating_point()})}  # fmt: skip
    payload: Payload = {PACKED: Channel(step)}
    for stage in reversed(stages):
        payload = stage.decode(context, payload, like)
    moves = payload[PACKED].tree
    _check(moves, like[PACKED].tree)
    return {
        name: (value.float() + moves[name]).to(value.dtype) if name in moves else value
        for name, value in adapter.items()
    }


def _check(moves: Tree, like: Tree) -> None:
    if moves.keys() != like.keys():
        raise PayloadError("a step came with other names than the adapter has")
    for name, value in moves.items():
        if value.shape != like[name].shape or not (value.numel() == 0 or finite(value)):
            raise PayloadError(f"a step came whose '{name}' cannot be added to the adapter's")
