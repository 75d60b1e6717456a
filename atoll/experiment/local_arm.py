"""What each client would have alone, trained and measured where its rows are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
from atoll.experiment.baselines import local_models
from atoll.experiment.setup import Setup
from atoll.local.bench import model_values
from atoll.local.evaluation import scored
from atoll.local.infer import evaluate

__all__ = ["LOCAL", "local_arm", "passes_of"]

LOCAL = "baseline-local"


def local_arm(setup: Setup) -> Algorithm:
    """The baseline `local` as a question to clients: sums of scores of each client's own model.

    It is asked once, after the last round; a broadcast tells how many passes a model may take.
    """
    blank = (0.0,) * setup.bench.objective.metric.width

    def template(broadcast: Payload) -> Payload:
        return scored(torch.zeros(len(blank)), 0.0)

    def work(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
        for request in requests:
            client = request.context.client
            passes = float(request.payload["passes"].tree["passes"])
            found = dict(local_models(setup, passes)).get(client)
            if found is None:
                yield Failure(client, "error", "its own model could not be trained")
                continue
            rows = setup.bench.examples(client, "test")
            score = evaluate(setup.bench, model_values(found), rows)
            yield Reply(client, scored(torch.tensor(score.sums or blank), score.count))

    def nothing(state: State, client: str) -> Payload:
        return passes_of(0.0)

    def unchanged(context: Context, state: State, aggregate: Payload) -> State:
        return state

    server = Server(LOCAL, lambda state: state, nothing, unchanged)
    client = ClientWork(LOCAL, template, work, ("metrics",))
    return Algorithm(LOCAL, client, (), mean(), server, kind="evaluation")


def passes_of(passes: float) -> Payload:
    """The broadcast that tells how many passes a model may take."""
    return {"passes": Channel({"passes": torch.tensor(passes, dtype=torch.float64)}, "none")}
