"""An active attack: weights that a dishonest server plants, so that one text betrays itself.

Vu, Nguyen, Jeter, Thai, Analysis of Privacy Leakage in Federated Large Language Models (AISTATS
2024, arXiv 2403.04784), the attack on fully connected layers: neurons compute ±(e − v)_i of an
embedding e, the next layer max(τ − ‖e − v‖₁, 0), and the gradient of its bias is zero unless e is
near the target's v. Here the layers are those of two transformer blocks: e is what the first one's
feed-forward part reads at the first token, and the distance goes to the second along one feature.

Implemented to test what refuses it (`atoll.policy.guard`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from atoll.audit.sight import Sight, inputs_of
from atoll.local.bench import Bench
from atoll.models.objective import Example
from atoll.tree import Tree

__all__ = ["FEATURE", "Planted", "Ways", "betrayed", "plant", "set_trap"]

SHARP = 50.0
"""Weights that make |x| of an activation such as GELU, and leave no other feature a say."""
MARGIN = 40.0
"""How far below zero the trap is for a text that is not the target: there GELU has no gradient."""
FEATURE = 0


@dataclass(frozen=True)
class Ways:
    """Names of modules: the feed-forward layers of one block (up, down), and of the next block the
    attention's output, which is silenced, and the first feed-forward layer, which holds the trap.
    """

    up: str
    down: str
    silenced: str
    trap: str


@dataclass(frozen=True)
class Planted:
    """Values for a broadcast, and the neuron of the trap."""

    values: Tree
    neuron: int


def plant(
    bench: Bench, values: Tree, ways: Ways, target: Example, others: Sequence[Example]
) -> Planted:
    """Values under which the trap's neuron fires for the target alone.

    others: rows of the server's own, by which it finds a threshold.
    """
    planted = {name: value.clone() for name, value in values.items()}
    v = _first_token(bench, values, ways.up, target)
    up, bias = planted[f"{ways.up}.weight"].zero_(), planted[f"{ways.up}.bias"].zero_()
    count = min(len(v), len(up) // 2)
    for place in range(count):
        for sign, row in ((1, 2 * place), (-1, 2 * place + 1)):
            up[row, place], bias[row] = sign * SHARP, -sign * SHARP * v[place]
    planted[f"{ways.down}.weight"].zero_()[FEATURE, : 2 * count] = -1.0
    for name in (ways.down, ways.silenced):
        planted[f"{name}.bias"].zero_()
    planted[f"{ways.silenced}.weight"].zero_()
    near = float(_first_token(bench, planted, ways.trap, target)[FEATURE])
    far = max(float(_first_token(bench, planted, ways.trap, row)[FEATURE]) for row in others)
    return Planted(planted, set_trap(planted, ways.trap, near, far))


def set_trap(planted: Tree, module: str, near: float, far: float) -> int:
    """The neuron that now fires where the feature is `near`, and not where it is `far`."""
    assert near > far, "the target is told from the server's own rows"
    neuron, slope = 0, MARGIN / (near - far)
    planted[f"{module}.weight"][neuron] = 0.0
    planted[f"{module}.weight"][neuron, FEATURE] = slope
    planted[f"{module}.bias"][neuron] = -slope * (near + far) / 2
    return neuron


def betrayed(update: Tree, trap: str, neuron: int) -> float:
    """How much the trap's bias moved; 0 where it did not travel."""
    bias = update.get(f"{trap}.bias")
    return 0.0 if bias is None else float(bias[neuron].abs())


def _first_token(bench: Bench, values: Tree, module: str, example: Example) -> Tensor:
    batch = bench.objective.collate([example])
    return inputs_of(bench, values, batch.inputs, Sight((module,), frozenset()))[0, 0].cpu()
