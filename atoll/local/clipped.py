"""Client work whose update is cut to the bound that was broadcast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from atoll.core import Channel, ClientWork, Failure, Payload, Reply, Request
from atoll.errors import PayloadError
from atoll.local.work import scalar
from atoll.servers.quantile import BELOW, CLIP
from atoll.stages import clip
from atoll.tree import l2_norm

__all__ = ["cut_as_told"]

UPDATE = "update"


def cut_as_told(work: ClientWork, *, most: float) -> ClientWork:
    """`work`, whose update is cut to the norm of channel `clip`, and tells whether it was longer.

    most: the largest bound that a client takes from a server.
    """

    def template(broadcast: Payload) -> Payload:
        return {**work.template(broadcast), BELOW: _told(0.5)}

    def answered(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
        asked = {request.context.client: request for request in requests}
        for reply in work.work(requests):
            if isinstance(reply, Failure):
                yield reply
                continue
            try:
                yield _cut(asked[reply.client], reply, most)
            except PayloadError as error:
                yield Failure(reply.client, "payload", str(error))

    return replace(
        work,
        template=template,
        work=answered,
        channels=(*work.channels, BELOW),
        bounded=(*work.bounded, UPDATE, BELOW),
    )


def _cut(request: Request, reply: Reply, most: float) -> Reply:
    (norm,) = request.payload[CLIP].tree.values() if CLIP in request.payload else (None,)
    if norm is None or norm.numel() != 1 or not 0 < float(norm) <= most:
        raise PayloadError(
            f"the bound to cut to is {'missing' if norm is None else norm.tolist()}, expected a "
            f"number above 0 and up to {most:g}"
        )
    before = l2_norm(reply.payload[UPDATE].tree)
    payload, _ = clip(norm=float(norm)).encode(request.context, reply.payload, {})
    below = _told(0.5 if before <= float(norm) else -0.5)
    return replace(reply, payload={**payload, BELOW: below})


def _told(value: float) -> Channel:
    return Channel({"value": scalar(value)}, "sum")
