"""Did federating help? The federated model beside local and pooled ones, on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from atoll.core import State
from atoll.experiment.baselines import POOLED, arm
from atoll.experiment.setup import Setup
from atoll.local.bench import model_values
from atoll.local.infer import Score, evaluate
from atoll.tree import Tree

__all__ = ["Arm", "Comparison", "compare"]


@dataclass(frozen=True)
class Arm:
    """One way to a model: its metric on the common rows, and the scores on each client's own."""

    common: float
    own: Mapping[str, Score]


@dataclass(frozen=True)
class Comparison:
    """The federated arm, and the baselines that were asked for."""

    federated: Arm
    local: Arm | None = None
    pooled: Arm | None = None

    @property
    def arms(self) -> dict[str, Arm]:
        """The arms that there are, by name."""
        named = {"federated": self.federated, "local": self.local, "pooled": self.pooled}
        return {name: arm for name, arm in named.items() if arm is not None}


def compare(setup: Setup, state: State, step: Callable[[str, int, int], None]) -> Comparison:
    """Evaluate the federated model, and train and evaluate the baselines."""
    wanted = setup.experiment.evaluate.baselines
    federated = _one_model(setup, model_values(state))
    local = _local(setup, step) if "local" in wanted else None
    pooled = None
    if "pooled" in wanted:
        step("pooled", 0, 1)
        models = dict(arm(setup, [POOLED], tick=lambda client: step("pooled", 1, 1)))
        pooled = _one_model(setup, model_values(models[POOLED])) if models else None
    return Comparison(federated, local, pooled)


def _one_model(setup: Setup, values: Tree) -> Arm:
    own = {
        client: evaluate(setup.bench, values, setup.bench.examples(client, "test"))
        for client in setup.data.clients
    }
    rows = setup.common_test()
    if rows is None:
        total = Score(sum(s.total for s in own.values()), sum(s.count for s in own.values()))
        return Arm(setup.bench.objective.final(total.mean), own)
    return Arm(setup.bench.objective.final(evaluate(setup.bench, values, rows).mean), own)


def _local(setup: Setup, step: Callable[[str, int, int], None]) -> Arm:
    """Each client's own model; `common` is the mean over clients of what it reaches there."""
    rows = setup.common_test() or setup.all_held_out()
    clients = setup.data.clients
    common: list[float] = []
    own: dict[str, Score] = {}
    step("local", 0, len(clients))
    for done, (client, state) in enumerate(arm(setup, clients, tick=lambda name: None), start=1):
        values = model_values(state)
        own[client] = evaluate(setup.bench, values, setup.bench.examples(client, "test"))
        common.append(setup.bench.objective.final(evaluate(setup.bench, values, rows).mean))
        step("local", done, len(clients))
    return Arm(sum(common) / len(common) if common else float("nan"), own)
