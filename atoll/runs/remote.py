"""The arms of a federation whose rows are elsewhere: clients measure, and tell their scores."""

from __future__ import annotations

from dataclasses import replace

from atoll.core import Context, Reply, Runtime, State, Task, metrics_of
from atoll.experiment.baselines import expected_passes
from atoll.experiment.local_arm import LOCAL, passes_of
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
    task = Task("evaluation", context, lambda c: evaluation.server.broadcast(state, c), {})
    federated = _arm(runtime, task, observer)
    local = None
    if "local" in setup.experiment.evaluate.baselines:
        passes = passes_of(expected_passes(setup, rounds))
        task = Task(LOCAL, replace(context, exchange=LAST + 1), lambda client: passes, {})
        observer.note("baseline: local, at each client")
        local = _arm(runtime, task, observer)
    return Comparison(federated, local)


def _arm(runtime: Runtime, task: Task, observer: Observer) -> Arm:
    own: dict[str, Sums] = {}
    for reply in runtime.call([task], task.context.cohort):
        if isinstance(reply, Reply):
            own[reply.client] = Sums(score_of(metrics_of(reply.payload)))
        else:
            observer.note(f"{task.algorithm}: {reply.client} is left out: {reply.message}")
    scores = [one.whole for one in own.values() if one.whole.count]
    return Arm((Sums(sum(scores[1:], scores[0])),) if scores else (), own)
