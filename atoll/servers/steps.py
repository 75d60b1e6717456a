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
from atoll.tree import digest, finite, nbytes

__all__ = ["following", "in_steps"]

STEP, UNSENT, TRAIL = "step", "unsent", "trail"
"""Parts of the state: the last step as it travels, what it left out, and where it leads."""
FROM, TO, EXCHANGE = "from", "to", "exchange"
NEVER = 2**62
PACKED = "update"
"""The channel that stages pack."""


def in_steps(inner: Server, stages: Sequence[Stage]) -> Server:
    """The server `inner`, whose adapter moves by steps as `stages` pack them; see `following`.

    Raises:
        ConfigError: a stage that packs nothing, or stages that cannot follow each other.
    """
    for stage in stages:
        if not stage.packs or stage.channels != (PACKED,) or stage.decode_at != "reply":
            raise ConfigError(
                f"stage '{stage.name}' packs nothing that a server sends; valid: quantise, top_k"
            )
    check_order(stages)
    _try(stages)

    def init(state: State) -> State:
        state = inner.init(state)
        adapter = state.get(ADAPTER, {})
        still = {name: torch.zeros_like(value) for name, value in _wide(adapter).items()}
        trail = {FROM: digest({}), TO: digest({}), EXCHANGE: torch.tensor(NEVER)}
        step = _packed(Context(0, "", 0, 0, (), 1), still, stages)
        return {UNSENT: still, STEP: step, TRAIL: trail, **state}

    def apply(context: Context, state: State, aggregate: Payload) -> State:
        before, unsent = state.get(ADAPTER, {}), state.get(UNSENT, {})
        start = _wide(before)
        state = inner.apply(context, state, aggregate)
        wanted = {
            name: value - start[name] + unsent.get(name, 0.0)
            for name, value in _wide(state.get(ADAPTER, {})).items()
        }
        step = _packed(context, wanted, stages)
        after = {**state.get(ADAPTER, {}), **_moved(context, before, step, stages)}
        trail = {FROM: digest(before), TO: digest(after), EXCHANGE: torch.tensor(context.exchange)}
        reached = _wide(after)
        left = {name: u - (reached[name] - start[name]) for name, u in wanted.items()}
        moved = {ADAPTER: after} if ADAPTER in state else {}
        return {**state, **moved, STEP: step, UNSENT: left, TRAIL: trail}

    return replace(inner, init=init, apply=apply)


def following(server: Server, stages: Sequence[Stage]) -> Server:
    """A server that sends what others move by steps; it moves nothing of that itself."""

    def sent(state: State, client: str, answered: int | None) -> Payload:
        payload, trail = server.broadcast(state, client), state.get(TRAIL)
        own = ADAPTER in payload and payload[ADAPTER].tree is state[ADAPTER]
        if trail is None or not own or answered is None or answered < int(trail[EXCHANGE]):
            return payload
        there = answered > int(trail[EXCHANGE])
        if not there and nbytes(state[STEP]) >= nbytes(state[ADAPTER]):
            return payload
        return {
            TRAIL: Channel({FROM: trail[FROM], TO: trail[TO]}, "none"),
            STEP: Channel({} if there else state[STEP], "none"),
            **{name: channel for name, channel in payload.items() if name != ADAPTER},
        }

    def received(context: Context, payload: Payload, adapter: Tree | None) -> Payload:
        if TRAIL not in payload:
            return payload
        rest = {name: one for name, one in payload.items() if name not in (TRAIL, STEP)}
        return {**rest, ADAPTER: Channel(_followed(context, payload, adapter, stages))}

    return replace(server, downlink=Downlink(sent, received))


def _followed(
    context: Context, payload: Payload, adapter: Tree | None, stages: Sequence[Stage]
) -> Tree:
    """The adapter that a step leads to."""
    trail, step = payload[TRAIL].tree, payload[STEP].tree if STEP in payload else {}
    if adapter is None or trail.keys() != {FROM, TO}:
        raise HeldError("a step came, and there is no adapter here to take it from: all is needed")
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
    wide = _wide(adapter)
    _check_size(step, wide)
    payload: Payload = {PACKED: Channel(step)}
    for stage in reversed(stages):
        payload = stage.decode(context, payload, {PACKED: Channel(wide)})
    moves = payload[PACKED].tree
    _check(moves, wide)
    return {name: (value + moves[name]).to(adapter[name].dtype) for name, value in wide.items()}


def _wide(adapter: Tree) -> Tree:
    """Its floating values in float32, or wider."""
    return {
        name: value.to(torch.promote_types(value.dtype, torch.float32))
        for name, value in adapter.items()
        if value.is_floating_point()
    }


def _check_size(step: Tree, wide: Tree) -> None:
    """Refuse what would unfold to more than the adapter, before it is unpacked."""
    most = max((value.numel() for value in wide.values()), default=0)
    if len(step) > 4 * len(wide) or any(value.numel() > max(most, 1) for value in step.values()):
        raise PayloadError("a step came that is larger than the adapter")


def _try(stages: Sequence[Stage]) -> None:
    """Pack a few values, and unpack them."""
    values, context = {"value": torch.zeros(4)}, Context(0, "", 0, 0, (), 1)
    try:
        _moved(context, values, _packed(context, values, stages), stages)
    except PayloadError as error:
        names = ", ".join(stage.name for stage in stages)
        raise ConfigError(f"stages {names} cannot follow each other: {error}") from error


def _check(moves: Tree, like: Tree) -> None:
    if moves.keys() != like.keys():
        raise PayloadError("a step came with other names than the adapter has")
    for name, value in moves.items():
        if value.shape != like[name].shape or not (value.numel() == 0 or finite(value)):
            raise PayloadError(f"a step came whose '{name}' cannot be added to the adapter's")
