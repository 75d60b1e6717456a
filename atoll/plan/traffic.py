"""Bytes that travel: the payloads of the algorithms themselves, with nothing in them yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from atoll.core import Algorithm, Context, Payload, State, payload_nbytes
from atoll.experiment.setup import Setup
from atoll.plan.asked import Asked

__all__ = ["Traffic", "blank_reply", "traffic"]

_Shape = tuple[tuple[str, str, tuple[int, ...], str], ...]


@dataclass(frozen=True)
class Traffic:
    """Bytes of one exchange; `asked` says which."""

    asked: Asked
    bytes_up: int
    bytes_down: int


def traffic(setup: Setup, exchanges: Sequence[Asked]) -> list[Traffic]:
    """The bytes of every exchange, as `atoll.round` counts them when every client answers."""
    sizes = {name: _sizes(setup, one) for name, one in setup.program.algorithms.items()}
    found: list[Traffic] = []
    answered: dict[str, int] = {}
    stepped: int | None = None
    for one in exchanges:
        cohort, own = one.context.cohort, sizes[one.algorithm]
        pairs = [own(one.context.at(c), _since(answered.get(c), stepped)) for c in cohort]
        up, down = setup.program.algorithms[one.algorithm].said(one.context)
        found.append(
            Traffic(one, up + sum(up for up, _ in pairs), down + sum(down for _, down in pairs))
        )
        answered |= dict.fromkeys(cohort, one.context.exchange)
        stepped = one.context.exchange if one.kind == "round" else stepped
    return found


def _since(answered: int | None, stepped: int | None) -> int | None:
    """Whether a client answered before the last step (-1), in that exchange (0), or after (1)."""
    if answered is None or stepped is None:
        return None
    return (answered > stepped) - (answered < stepped)


def blank_reply(algorithm: Algorithm, context: Context, broadcast: Payload) -> Payload:
    """What a client would send: the work's template through the stages' encoders."""
    payload = algorithm.client.template(broadcast)
    for stage in algorithm.stages:
        payload, _ = stage.encode(context, payload, stage.init(payload))
    return payload


def _sizes(setup: Setup, algorithm: Algorithm) -> Callable[[Context, int | None], tuple[int, int]]:
    """(bytes up, bytes down) of one client; worked out once for each client and each shape."""
    state = _stepped(setup) if algorithm.server.downlink else setup.start.server
    known: dict[tuple[str, int | None], tuple[int, int]] = {}
    shaped: dict[_Shape, int] = {}

    def sizes(context: Context, since: int | None) -> tuple[int, int]:
        client = context.client
        if (client, since) not in known:
            broadcast = algorithm.server.broadcast(state, client)
            shape = _shape(broadcast)
            if shape not in shaped:
                reply = blank_reply(algorithm, context, broadcast)
                shaped[shape] = payload_nbytes(algorithm.travelling(reply))
            travels = algorithm.server.sent(state, client, since)
            known[client, since] = shaped[shape], payload_nbytes(travels)
        return known[client, since]

    return sizes


def _stepped(setup: Setup) -> State:
    """The server's state after a round in exchange 0."""
    state, training = setup.start.server, setup.program.algorithms.get("train")
    if training is None:
        return state
    like = training.client.template(training.server.broadcast(state, ""))
    nothing = training.aggregator.finish(training.aggregator.init(like))
    context = Context(0, "plan", 1, 0, (), 1)
    return training.server.apply(context, training.server.init(state), nothing)


def _shape(payload: Payload) -> _Shape:
    return tuple(
        (name, key, tuple(value.shape), str(value.dtype))
        for name, channel in payload.items()
        for key, value in channel.tree.items()
    )
