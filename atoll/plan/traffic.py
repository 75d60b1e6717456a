"""Bytes that travel: the payloads of the algorithms themselves, with nothing in them yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from atoll.core import Algorithm, Context, Payload, payload_nbytes
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
    found = []
    for one in exchanges:
        pairs = [sizes[one.algorithm](one.context.at(client)) for client in one.context.cohort]
        found.append(Traffic(one, sum(up for up, _ in pairs), sum(down for _, down in pairs)))
    return found


def blank_reply(algorithm: Algorithm, context: Context, broadcast: Payload) -> Payload:
    """What a client would send: the work's template through the stages' encoders."""
    payload = algorithm.client.template(broadcast)
    for stage in algorithm.stages:
        payload, _ = stage.encode(context, payload, stage.init(payload))
    return payload


def _sizes(setup: Setup, algorithm: Algorithm) -> Callable[[Context], tuple[int, int]]:
    """(bytes up, bytes down) of one client; worked out once for each client and each shape."""
    state = setup.start.server
    known: dict[str, tuple[int, int]] = {}
    shaped: dict[_Shape, int] = {}

    def sizes(context: Context) -> tuple[int, int]:
        if context.client not in known:
            broadcast = algorithm.server.broadcast(state, context.client)
            shape = _shape(broadcast)
            if shape not in shaped:
                shaped[shape] = payload_nbytes(blank_reply(algorithm, context, broadcast))
            known[context.client] = shaped[shape], payload_nbytes(broadcast)
        return known[context.client]

    return sizes


def _shape(payload: Payload) -> _Shape:
    return tuple(
        (name, key, tuple(value.shape), str(value.dtype))
        for name, channel in payload.items()
        for key, value in channel.tree.items()
    )
