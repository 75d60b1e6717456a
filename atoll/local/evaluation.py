"""Evaluation of the server's model on each client's own held-out rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from atoll.aggregators import mean
from atoll.core import (
    Algorithm,
    Channel,
    ClientWork,
    Context,
    Failure,
    Payload,
    Reply,
    Request,
    Server,
    State,
)
from atoll.local.bench import Bench, broadcast_values
from atoll.local.infer import evaluate
from atoll.local.work import scalar
from atoll.servers import average

__all__ = ["evaluation"]


def evaluation(bench: Bench) -> Algorithm:
    """Sums of scores and of what they count; a client without held-out rows answers with zeros."""

    def template(broadcast: Payload) -> Payload:
        return _channel(0.0, 0.0)

    def work(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
        for request in requests:
            client = request.context.client
            score = evaluate(
                bench, broadcast_values(request.payload), bench.examples(client, "test")
            )
            yield Reply(client, _channel(score.total, score.count))

    def unchanged(context: Context, state: State, aggregate: Payload) -> State:
        return state

    sender = average()
    server = Server("evaluation", lambda state: state, sender.broadcast, unchanged)
    client = ClientWork("evaluation", template, work, ("metrics",))
    return Algorithm("evaluation", client, (), mean(), server, kind="evaluation")


def _channel(total: float, count: float) -> Payload:
    return {"metrics": Channel({"total": scalar(total), "count": scalar(count)}, "sum")}
