"""Evaluation of the server's model on each client's own held-out rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

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
from atoll.local.infer import Score, evaluate
from atoll.local.work import scalar
from atoll.servers import average

__all__ = ["evaluation", "score_of", "scored"]


def evaluation(bench: Bench) -> Algorithm:
    """Sums of scores and of what they count; a client without held-out rows answers with zeros."""
    blank = (0.0,) * bench.objective.metric.width

    def template(broadcast: Payload) -> Payload:
        return scored(torch.zeros(len(blank)), 0.0)

    def work(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
        for request in requests:
            client = request.context.client
            score = evaluate(
                bench, broadcast_values(request.payload), bench.examples(client, "test")
            )
            yield Reply(client, scored(torch.tensor(score.sums or blank), score.count))

    def unchanged(context: Context, state: State, aggregate: Payload) -> State:
        return state

    sender = average()
    server = Server("evaluation", lambda state: state, sender.broadcast, unchanged)
    client = ClientWork("evaluation", template, work, ("metrics",))
    return Algorithm("evaluation", client, (), mean(), server, kind="evaluation")


def score_of(metrics: Mapping[str, float]) -> Score:
    """The score that an evaluation's metrics hold."""
    places = range(sum(name.startswith("sums.") for name in metrics))
    return Score(tuple(metrics[f"sums.{place}"] for place in places), metrics["count"])


def scored(sums: torch.Tensor, count: float) -> Payload:
    """What a client says of its held-out rows; `score_of` reads it."""
    return {"metrics": Channel({"sums": sums, "count": scalar(count)}, "sum")}
