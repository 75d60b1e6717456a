"""A server that plants weights: the attack works on a full model, and the guard refuses it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from atoll.audit.planted import Planted, Ways, plant
from atoll.audit.ranking import auc
from atoll.audit.trial import trial_of
from atoll.core import Federation, Payload, Position, Program, State
from atoll.errors import PolicyError, QuorumError
from atoll.experiment.setup import Setup
from atoll.local.bench import model_values
from atoll.models.locate import fingerprint
from atoll.models.objective import Example
from atoll.policy.guard import Known, check_broadcast
from atoll.round import federate
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.store import memory_store
from atoll.tree import Tree
from tests.support.games import GAMES, check_attack, played, quiet_setup, rows_of, some_values
from tests.support.scenes import scene

if TYPE_CHECKING:
    from tests.support.models import Zoo

BLOCKS = "backbone.encoder.layer."
WAYS = Ways(
    up=f"{BLOCKS}0.intermediate.dense",
    down=f"{BLOCKS}0.output.dense",
    silenced=f"{BLOCKS}1.attention.output.dense",
    trap=f"{BLOCKS}1.intermediate.dense",
)


def _planted(setup: Setup, values: Tree) -> tuple[Planted, Example]:
    draw = random.Random(0)
    (target,) = rows_of(setup, draw, 1)
    return plant(setup.bench, values, WAYS, target, rows_of(setup, draw, 50)), target


def test_the_attack_on_a_full_model_tells_who_trained_on_a_text(tmp_path: Path, zoo: Zoo) -> None:
    setup = quiet_setup(tmp_path, zoo, "full")
    planted, target = _planted(setup, some_values(setup))
    check_attack(setup, planted, WAYS.trap, target)


def test_the_guard_refuses_it_whole_and_tensor_by_tensor(tmp_path: Path, zoo: Zoo) -> None:
    setup = quiet_setup(tmp_path, zoo, "full")
    values = some_values(setup)
    planted, _ = _planted(setup, values)
    known = Known(values, values, frozenset(setup.start.server["adapter"]))
    with pytest.raises(PolicyError, match=r"policy rule 'guard': backbone\.encoder\.layer\."):
        check_broadcast(planted.values, known)
    changed = {n for n in values if not torch.equal(values[n], planted.values[n])}
    assert {f"{name}.weight" for name in vars(WAYS).values()} <= changed
    for name in changed:
        # Two biases are only set to zero, which is nothing.
        if name in (f"{WAYS.down}.bias", f"{WAYS.silenced}.bias"):
            check_broadcast({**values, name: planted.values[name]}, known)
            continue
        with pytest.raises(PolicyError, match=name):
            check_broadcast({**values, name: planted.values[name]}, known)


@pytest.mark.long
def test_a_lora_has_no_place_for_the_trap(tmp_path: Path, zoo: Zoo) -> None:
    full, setup = quiet_setup(tmp_path / "f", zoo, "full"), quiet_setup(tmp_path / "l", zoo, "lora")
    planted, target = _planted(full, some_values(full))
    # What would be planted is frozen: no broadcast holds it, and a base that does is another one.
    assert not planted.values.keys() & setup.start.server["adapter"].keys()
    values = some_values(setup)
    there, others = played(setup, values, (WAYS.trap, planted.neuron), target)
    assert auc(there, others) == 0.5
    # Nor does the part of the adapter at the trap's neuron tell.
    there, others = (_at_neuron(setup, values, planted.neuron, target, member)
                     for member in (True, False))  # fmt: skip
    assert 0.3 <= auc(there, others) <= 0.7
    before = fingerprint(setup.base.backbone)
    with torch.no_grad():
        layer = setup.base.model.get_submodule(WAYS.trap)
        layer.weight.copy_(planted.values[f"{WAYS.trap}.weight"])
    assert fingerprint(setup.base.backbone) != before


def _at_neuron(
    setup: Setup, values: Tree, neuron: int, target: Example, member: bool
) -> Sequence[float]:
    draw, found = random.Random(2), []
    for _ in range(GAMES // 2):
        batch = rows_of(setup, draw, 4)
        if member:
            batch[draw.randrange(4)] = target
        trial = trial_of(setup, setup.loaded, values, {"ada": batch})
        assert trial is not None
        update = trial.payloads()["ada"]["update"].tree
        found.append(float(update[f"{WAYS.trap}.lora_B.weight"][neuron].norm()))
    return found


def _released(folder: Path, zoo: Zoo, planted: Tree, place: int) -> tuple[Tree, Tree]:
    """The model before and after a round of secure sums in which one client was sent `planted`."""
    setup = scene(
        folder, zoo, "bert", adapter={"head": "train"}, model={"pooling": "mean"},
        train={"max_steps": 1}, federation={"num_rounds": 1},
        privacy={"secure_aggregation": True, "clip": 1.0, "min_survivors": 2, "corrupt": 0,
                 "dropping": 0},
    )  # fmt: skip
    train, target = setup.program.algorithms["train"], setup.data.clients[place]

    def broadcast(state: State, client: str) -> Payload:
        payload = train.server.broadcast(state, client)
        adapter = payload["adapter"]
        own = {**adapter.tree, **planted} if client == target else adapter.tree
        return {**payload, "adapter": adapter.with_tree(own)}

    algorithms = {**setup.program.algorithms}
    algorithms["train"] = replace(train, server=replace(train.server, broadcast=broadcast))
    program, start = Program(algorithms, lambda number: ("train",)), setup.start
    runtime = InProcess(setup.data.clients, algorithms, memory_store())
    federation = Federation(0, "r", 1, len(setup.data.clients))
    *_, last = federate(program, runtime, federation, Position(start.server, round=0))
    return model_values(start.server), model_values(last.position.server)


def test_a_model_for_one_client_alone_shows_nothing_of_a_secure_sum(
    tmp_path: Path, zoo: Zoo
) -> None:
    before, after = _released(tmp_path / "same", zoo, {}, 0)
    honest = torch.cat([(after[name] - before[name]).flatten() for name in before])
    name = next(name for name in before if name.endswith("lora_A.weight"))
    other = {name: before[name] + 1e-3}
    # The root that the server gives is the one client's, or the others': who has another signs
    # another.
    with pytest.raises(QuorumError, match="not over these survivors and this model"):
        _released(tmp_path / "first", zoo, other, 0)
    before, after = _released(tmp_path / "last", zoo, other, -1)
    shown = torch.cat([(after[name] - before[name]).flatten() for name in before])
    # Enough signed the others' root. Masks that do not cancel are uniform over all that a sum can
    # be.
    assert float(shown.abs().mean()) > 100 * float(honest.abs().mean())
    assert abs(float(torch.corrcoef(torch.stack([honest, shown]))[0, 1])) < 0.1
