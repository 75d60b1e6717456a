"""The arms of a federation whose rows are elsewhere: clients measure, and tell their scores."""

from __future__ import annotations

from dataclasses import replace

from atoll.core import Context, Payload, Reply, Runtime, State, Task, metrics_of
from atoll.experiment.baselines import expected_passes
from atoll.experiment.local_arm import LOCAL, gains_of, passes_of
from atoll.experiment.setup import Setup
from atoll.local.evaluation import score_of
from atoll.runs.compare import Arm, Comparison, Sums
from atoll.runs.where import Observer

__all__ = ["compared_there"]

LAST = 2**30
"""The number of the first question after the last round."""


def compared_there(
    setup: Setup, runtime: Runtime, state: State, rounds: int, observer: Observer
) -> Comparison:
    """The arms as far as they can be had: each client measures on its own rows."""
    evaluation = setup.program.algorithms["evaluation"]
    context = Context(
        setup.experiment.seed, "arms", rounds, LAST, runtime.roster, len(runtime.roster)
    )

    def model(client: str) -> Payload:
        return evaluation.server.broadcast(state, client)

    federated, _ = _arm(runtime, Task("evaluation", context, model, {}), observer)
    local, gains = None, dict[str, tuple[float, float]]()
    if "local" in setup.experiment.evaluate.baselines:
        passes = passes_of(expected_passes(setup, rounds))
        own = replace(context, exchange=LAST + 1)
        task = Task(LOCAL, own, lambda client: model(client) | passes, {})
        observer.note("baseline: local, at each client")
        local, told = _arm(runtime, task, observer)
        gains = {c: found for c, metrics in told.items() if (found := gains_of(metrics))}
    return Comparison(federated, local, gains=gains)


def _arm(
    runtime: Runtime, task: Task, observer: Observer
) -> tuple[Arm, dict[str, dict[str, float]]]:
    """An arm, and what each client said."""
    own: dict[str, Sums] = {}
    told: dict[str, dict[str, float]] = {}
    for reply in runtime.call([task], task.context.cohort):
        if isinstance(reply, Reply):
            told[reply.client] = metrics_of(reply.payload)
            own[reply.client] = Sums(score_of(told[reply.client]))
        else:
            observer.note(f"{task.algorithm}: {reply.client} is left out: {reply.message}")
    scores = [one.whole for one in own.values() if one.whole.count]
    return Arm((Sums(sum(scores[1:], scores[0])),) if scores else (), own), told
