"""What each client would have alone, trained and measured where its rows are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from atoll import rng
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
from atoll.local.bench import broadcast_values, model_values
from atoll.local.evaluation import scored
from atoll.local.infer import Rows, measure
from atoll.local.intervals import gain_interval

__all__ = ["LOCAL", "gains_of", "local_arm", "passes_of"]

LOCAL = "baseline-local"


def local_arm(setup: Setup) -> Algorithm:
    """The baseline `local` as a question to clients: sums of scores of each client's own model, and
    the interval of what the federated one gains on it.

    It is asked once, after the last round; a broadcast holds the federated model, and tells how
    many passes a client's own may take.
    """
    blank = (0.0,) * setup.bench.objective.metric.width

    def template(broadcast: Payload) -> Payload:
        return _told(torch.zeros(len(blank)), 0.0, None)

    def work(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
        for request in requests:
            client = request.context.client
            passes = float(request.payload["passes"].tree["passes"])
            found = dict(local_models(setup, passes)).get(client)
            if found is None:
                yield Failure(client, "error", "its own model could not be trained")
                continue
            rows = setup.bench.examples(client, "test")
            own = measure(setup.bench, model_values(found), rows)
            ours = measure(setup.bench, broadcast_values(request.payload), rows)
            score = own.score(setup.bench.objective.metric)
            gains = _gains(setup, request.context, ours, own)
            yield Reply(client, _told(torch.tensor(score.sums or blank), score.count, gains))

    def nothing(state: State, client: str) -> Payload:
        return passes_of(0.0)

    def unchanged(context: Context, state: State, aggregate: Payload) -> State:
        return state

    server = Server(LOCAL, lambda state: state, nothing, unchanged)
    client = ClientWork(LOCAL, template, work, ("metrics",))
    return Algorithm(LOCAL, client, (), mean(), server, kind="evaluation")


def passes_of(passes: float) -> Payload:
    """The part of the broadcast that tells how many passes a model may take."""
    return {"passes": Channel({"passes": torch.tensor(passes, dtype=torch.float64)}, "none")}


def gains_of(metrics: Mapping[str, float]) -> tuple[float, float] | None:
    """The interval of a client's gain that its metrics hold."""
    low, high, known = (metrics[f"gain.{place}"] for place in range(3))
    return (low, high) if known and low <= high else None


def _gains(setup: Setup, context: Context, ours: Rows, own: Rows) -> tuple[float, float] | None:
    if not len(own.counts):
        return None
    return gain_interval(
        setup.bench.objective.metric, ours, own, models=2 * context.population,
        generator=rng.numpy_generator(setup.experiment.seed, "bootstrap", context.client),
    )  # fmt: skip


def _told(sums: torch.Tensor, count: float, gains: tuple[float, float] | None) -> Payload:
    payload = scored(sums, count)
    told = torch.tensor((*gains, 1.0) if gains else (0.0, 0.0, 0.0), dtype=torch.float64)
    metrics = payload["metrics"]
    return {**payload, "metrics": metrics.with_tree({**metrics.tree, "gain": told})}
