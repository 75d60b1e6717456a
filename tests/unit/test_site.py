"""A site answers letters as its policy lets it, and tells the person there what it does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from atoll.audit.planted import Planted, Ways, plant
from atoll.core import Failure, Reply
from atoll.egress.read import read as recorded
from atoll.experiment.setup import Setup
from atoll.frames import Kind
from atoll.local.bench import model_values
from atoll.policy import pause, resume
from atoll.runtimes.messages import Broken, read
from tests.support.letters import FULL, RUN, WHOLE, Server
from tests.support.models import Zoo


@pytest.fixture
def noted() -> list[str]:
    return []


@pytest.fixture
def server(tmp_path: Path, zoo: Zoo, noted: list[str]) -> Iterator[Server]:
    def note(text: str) -> None:
        noted.append(text)
        if text == "round 3: train":
            # A pause that comes while this round trains.
            pause(tmp_path / "state")

    found = Server(tmp_path, zoo, note)
    with found.egress:
        yield found


def test_a_pause_keeps_everything_at_the_site(server: Server, noted: list[str]) -> None:
    pause(server.state)
    frame = server.opens("look", None)
    assert frame.kind is Kind.BROKEN
    assert "policy rule 'paused'" in read(Broken, frame.data).message
    assert server.doing.refused is not None
    resume(server.state)

    setup = server.agrees()
    assert server.doing.run == RUN
    assert isinstance(server.trains(setup, 1), Reply)
    assert server.doing.answered is not None
    assert (server.doing.answered["round"], server.doing.answered["task"]) == (1, "train")
    assert server.doing.task is None

    pause(server.state)
    refused = server.trains(setup, 2)
    assert isinstance(refused, Failure)
    assert refused.message.startswith("policy rule 'paused'")
    resume(server.state)

    # It was pressed while the site was training: what was trained stays there.
    kept = server.trains(setup, 3)
    assert isinstance(kept, Failure)
    assert kept.message.startswith("policy rule 'paused'")
    assert noted[-1].startswith("refused: policy rule 'paused'")
    resume(server.state)
    assert isinstance(server.trains(setup, 4), Reply)
    left = [(line.round, line.task) for line in recorded(server.record, []) if line.kind == "sent"]
    assert left[-4:] == [(1, "train"), (2, "failure"), (3, "failure"), (4, "train")]


def test_a_model_that_training_does_not_make_is_not_trained(
    server: Server, noted: list[str]
) -> None:
    setup = server.agrees()
    assert isinstance(server.trains(setup, 1), Reply)
    name, value = next((n, v) for n, v in setup.start.server["adapter"].items() if "lora_B" in n)
    refused = server.trains(setup, 2, {name: torch.full_like(value, 50.0)})
    assert isinstance(refused, Failure)
    assert refused.kind == "policy"
    assert refused.message.startswith(f"policy rule 'guard': {name} of the server's broadcast adds")
    assert noted[-2].startswith(f"refused: policy rule 'guard': {name}")
    assert server.doing.refused is not None
    assert server.doing.refused["rule"] == "guard"
    # What was refused is not what the next one is held against.
    assert isinstance(server.trains(setup, 4), Reply)


def test_a_server_makes_its_first_state_anew_and_keeps_none(server: Server) -> None:
    """It trains nothing, and the first state would be one more of the model's size."""
    setup = server.agrees()
    first, again = setup.start.server, setup.start.server
    assert first.keys() == again.keys()
    for part, tree in first.items():
        for name, value in tree.items():
            assert torch.equal(again[part][name], value)
            assert again[part][name].data_ptr() != value.data_ptr()


def _trap(setup: Setup) -> Planted:
    """A model of which one neuron fires for one text of the site."""
    block = "backbone.encoder.layer."
    ways = Ways(
        up=f"{block}0.intermediate.dense", down=f"{block}0.output.dense",
        silenced=f"{block}1.attention.output.dense", trap=f"{block}1.intermediate.dense",
    )  # fmt: skip
    label = (setup.data.labels or ())[0]
    rows = [{"text": text, "label": label} for text in ("reef tide", "stern mast", "sail")]
    target, *others = setup.bench.objective.encode(rows)
    return plant(setup.bench, model_values(setup.start.server), ways, target, others)


def test_a_trap_in_a_full_model_is_refused_whatever_it_is_sent_for(
    tmp_path: Path, zoo: Zoo, noted: list[str]
) -> None:
    server = Server(tmp_path, zoo, noted.append, FULL, WHOLE)
    with server.egress:
        setup = server.agrees()
        trap = _trap(setup).values
        assert isinstance(server.trains(setup, 1), Reply)
        # Scores of rows tell of them as updates do, and rounds between are the server's word.
        for number, task in ((2, "train"), (3, "evaluation"), (900, "train")):
            refused = server.trains(setup, number, trap, task=task)
            assert isinstance(refused, Failure)
            assert refused.message.startswith("policy rule 'guard': backbone.encoder.layer.")
        left = [line.task for line in recorded(server.record, []) if line.kind == "sent"]
        assert left[-4:] == ["train", "failure", "failure", "failure"]


def test_a_site_may_do_without_the_guard(tmp_path: Path, zoo: Zoo, noted: list[str]) -> None:
    policy = WHOLE.model_copy(update={"guard": False})
    server = Server(tmp_path, zoo, noted.append, FULL, policy)
    with server.egress:
        setup = server.agrees()
        assert isinstance(server.trains(setup, 1, _trap(setup).values), Reply)
