"""Did federating help? The federated model beside local and pooled ones, on the same rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from atoll.core import State
from atoll.data import ClientCount
from atoll.experiment.baselines import expected_passes, local_models, pooled_model
from atoll.experiment.setup import Setup
from atoll.local.bench import model_values
from atoll.local.infer import Rows, Score, measure
from atoll.models.objective import Metric
from atoll.tree import Tree
from atoll.words import listed

__all__ = ["Arm", "Comparison", "Sums", "compare", "final_of", "joined", "metrics_of_arm"]


@dataclass(frozen=True)
class Sums:
    """Rows that are elsewhere: of them only their score has come."""

    whole: Score

    def score(self, metric: Metric) -> Score:
        """The score of the set."""
        return self.whole


@dataclass(frozen=True)
class Arm:
    """One way to a model, measured.

    common: scores of the common rows, for each of its models (local: one a client); empty where
        there is no row to measure on.
    own: the scores of each client's own held-out rows.
    """

    common: tuple[Rows | Sums, ...]
    own: Mapping[str, Rows | Sums]


@dataclass(frozen=True)
class Comparison:
    """The federated arm, and the baselines that were asked for.

    joined: rows of clients that were not there when the run was set up.
    gains: intervals of clients' gains, as they told them, where their rows are elsewhere.
    """

    federated: Arm
    local: Arm | None = None
    pooled: Arm | None = None
    joined: Mapping[str, ClientCount] = field(default_factory=dict)
    gains: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def arms(self) -> dict[str, Arm]:
        """The arms that there are, by name."""
        named = {"federated": self.federated, "local": self.local, "pooled": self.pooled}
        return {name: arm for name, arm in named.items() if arm is not None}


def compare(
    setup: Setup,
    state: State,
    *,
    rounds: int,
    step: Callable[[str, int, int], None],
    note: Callable[[str], None],
) -> Comparison:
    """Evaluate the federated model, and train and evaluate the baselines.

    rounds: how many the federated model had; baselines take as many passes over a row.
    note: hears of models that could not be trained, and so are not measured.
    """
    wanted = setup.experiment.evaluate.baselines
    federated = _one_model(setup, model_values(state))
    passes = expected_passes(setup, rounds)
    local = _local(setup, passes, step, note) if "local" in wanted else None
    pooled = None
    if "pooled" in wanted:
        step("pooled", 0, 1)
        state_of_all = pooled_model(setup, passes)
        step("pooled", 1, 1)
        if state_of_all is None:
            note("baseline pooled: its training failed, so it is left out")
        pooled = None if state_of_all is None else _one_model(setup, model_values(state_of_all))
    return Comparison(federated, local, pooled)


def _one_model(setup: Setup, values: Tree) -> Arm:
    own = {
        client: measure(setup.bench, values, setup.bench.examples(client, "test"))
        for client in setup.data.clients
    }
    rows = setup.common_test()
    if rows is not None:
        return Arm((measure(setup.bench, values, rows),), own)
    measured = [found for found in own.values() if len(found.counts)]
    return Arm((joined(measured),) if measured else (), own)


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of several sets as one set."""
    return Rows(
        torch.cat([part.scores for part in parts]), torch.cat([part.counts for part in parts])
    )


def metrics_of_arm(setup: Setup, arm: Arm) -> dict[str, float | None] | None:
    """The metrics on the common rows, the mean over an arm's models; None without such rows.

    One that is not a number on these rows (R² of a single one) is None too.
    """
    metric = setup.bench.objective.metric
    found = [
        metric.finals(score.sums, score.count)
        for rows in arm.common
        if (score := rows.score(metric)).count
    ]
    if not found:
        return None
    means = {name: sum(one[name] for one in found) / len(found) for name in found[0]}
    return {name: mean if math.isfinite(mean) else None for name, mean in means.items()}


def final_of(setup: Setup, score: Score) -> float | None:
    """The metric that a score comes to; None where nothing was counted, or it is no number."""
    metric = setup.bench.objective.metric
    final = metric.finals(score.sums, score.count)[metric.name] if score.count else math.nan
    return final if math.isfinite(final) else None


def _local(
    setup: Setup,
    passes: float,
    step: Callable[[str, int, int], None],
    note: Callable[[str], None],
) -> Arm:
    """Each client's own model; `common` is the mean over clients of what it reaches there."""
    clients, rows = setup.data.clients, setup.common_test()
    # Without common rows each client's are a set of their own, as for the federated model.
    sets = [setup.bench.examples(c, "test") for c in clients] if rows is None else [rows]
    common: list[Rows] = []
    own: dict[str, Rows] = {}
    step("local", 0, len(clients))
    for done, (client, state) in enumerate(local_models(setup, passes), start=1):
        values = model_values(state)
        own[client] = measure(setup.bench, values, setup.bench.examples(client, "test"))
        found = [measure(setup.bench, values, rows) for rows in sets]
        common.append(joined([one for one in found if len(one.counts)] or found[:1]))
        step("local", done, len(clients))
    failed = [client for client in clients if client not in own]
    if failed:
        note(f"baseline local: {listed(failed)} left out of its mean, because they could not train")
    return Arm(tuple(common), own)
