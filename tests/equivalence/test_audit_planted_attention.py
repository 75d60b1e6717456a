"""Two heads that a server plants tell who trained on a name, and the guard refuses them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from atoll.audit.planted import Planted
from atoll.audit.planted_attention import Attention, plant_heads
from atoll.errors import PolicyError
from atoll.experiment.setup import Setup
from atoll.models.objective import Example
from atoll.policy.guard import Known, check_broadcast
from atoll.tree import Tree
from tests.support.games import check_attack, quiet_setup, rows_of, some_values
from tests.support.models import WORDS

if TYPE_CHECKING:
    from tests.support.models import Zoo

BLOCK = "backbone.encoder.layer.0."
WAYS = Attention(
    query=f"{BLOCK}attention.self.query", key=f"{BLOCK}attention.self.key",
    value=f"{BLOCK}attention.self.value", output=f"{BLOCK}attention.output.dense",
    trap=f"{BLOCK}intermediate.dense", heads=2,
)  # fmt: skip
NAME, *OTHERS = WORDS


def _planted(setup: Setup, values: Tree) -> tuple[Planted, Example]:
    text = " ".join([*OTHERS[:3], NAME, *OTHERS[3:5]])
    row = {"text": text, "label": (setup.data.labels or ("",))[0]}
    (target,) = setup.bench.objective.encode([row])
    own = rows_of(setup, random.Random(0), 50, OTHERS)
    return plant_heads(setup.bench, values, WAYS, target, own), target


def test_heads_tell_who_trained_on_a_name(tmp_path: Path, zoo: Zoo) -> None:
    setup = quiet_setup(tmp_path, zoo, "full")
    planted, target = _planted(setup, some_values(setup))
    check_attack(setup, planted, WAYS.trap, target, OTHERS)


def test_the_guard_refuses_each_of_their_projections(tmp_path: Path, zoo: Zoo) -> None:
    setup = quiet_setup(tmp_path, zoo, "full")
    values = some_values(setup)
    planted, _ = _planted(setup, values)
    known = Known(values, values, frozenset(setup.start.server["adapter"]))
    with pytest.raises(PolicyError, match=r"policy rule 'guard': backbone\.encoder\.layer\.0"):
        check_broadcast(planted.values, known)
    modules = (WAYS.query, WAYS.key, WAYS.value, WAYS.output, WAYS.trap)
    for name in (f"{module}.weight" for module in modules):
        assert not torch.equal(planted.values[name], values[name])
        with pytest.raises(PolicyError, match=name):
            check_broadcast({**values, name: planted.values[name]}, known)
