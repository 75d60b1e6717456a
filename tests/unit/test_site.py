"""A site answers letters as its policy lets it, and tells the person there what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Thread

import pytest
import torch

from atoll.audit.planted import Planted, Ways, plant
from atoll.config import dump, load
from atoll.core import Context, Failure, Reply, Task
from atoll.core.wire import unpack
from atoll.egress.read import read as recorded
from atoll.experiment.joining import Place
from atoll.experiment.offers import agreed, server_data, versions
from atoll.experiment.opening import opening_letter
from atoll.experiment.setup import Setup, prepare
from atoll.experiment.terms import Agreed, Offer, Opening
from atoll.frames import Frame, Kind
from atoll.local.bench import model_values
from atoll.models.locate import fingerprint
from atoll.policy import Policy, pause, resume
from atoll.runtimes.asking import Asking
from atoll.runtimes.letters import Answer, Call, Letter, frames_in, packed, unpacked
from atoll.runtimes.mailbox import Mailbox
from atoll.runtimes.messages import Broken, read
from atoll.site import Site
from atoll.status import Doing
from atoll.tree import Tree
from tests.support.departures import open_record, site
from tests.support.federation import labelled_rows
from tests.support.models import Zoo
from tests.support.scenes import write_clients

KINDS = (Kind.READY, Kind.BROKEN, Kind.RECORD, Kind.DONE)

RUN = 32 * "0"
LORA = {"r": 2, "target_modules": ["query"], "head": "train"}
FULL = {"method": "full", "head": "train"}
POLICY = Policy(label_names=True, min_rows=1, models=("any",))
WHOLE = Policy(label_names=True, min_rows=1, models=("any",), tensors=("*",))


class Server:
    """Asks the site `ada`, by letters."""

    def __init__(
        self,
        folder: Path,
        zoo: Zoo,
        note: Callable[[str], None],
        adapter: Mapping[str, object] = LORA,
        policy: Policy = POLICY,
    ) -> None:
        self.state, self.doing = folder / "state", Doing("localhost:9092")
        write_clients(folder / "data", labelled_rows({"ada": 9}))
        written = {
            "model": {"name_or_path": zoo("bert"), "pooling": "mean"},
            "data": {"path": str(folder / "data"), "max_length": 24},
            "adapter": {**adapter},
            "train": {"device": "cpu", "group_size": 1, "max_steps": 1},
        }
        (folder / "fl.yaml").write_text(str(written))
        self.loaded = load(folder / "fl.yaml")
        place = Place("ada", folder / "data" / "ada", self.state, policy)
        self.record = folder / "egress"
        self.egress = open_record(self.record, site("ada"))
        answering = Site(place, self.egress, note, self.doing)
        self.mailbox = Mailbox(self.state, "ada", answering.knows)
        Thread(target=answering.work, args=(self.mailbox,), daemon=True).start()

    def asks(self, letter: Letter) -> list[Frame]:
        call = Call(run=RUN, letter=letter.name, size=letter.size, digest=letter.digest, piece=0)
        sent = packed(call, [letter.rest])
        while True:
            answer, body = unpacked(Answer, self.mailbox.take(sent))
            if answer.state == "done" and answer.piece is not None:
                return list(frames_in(bytes(body), kinds=KINDS))

    def opens(self, name: str, told: Agreed | None) -> Frame:
        opening = Opening(versions=versions(), run=RUN, experiment=dump(self.loaded.experiment),
                          agreed=told)  # fmt: skip
        (frame,) = self.asks(opening_letter(name, opening))
        return frame

    def agrees(self) -> Setup:
        """What a server has after the opening, and the site opened for it."""
        offers = {"ada": read(Offer, self.opens("look", None).data)}
        told = agreed(self.loaded.experiment, offers, "")
        data = server_data(self.loaded.experiment, offers, told)
        setup = prepare(self.loaded, note=lambda text: None, data=data)
        base = fingerprint(setup.base.backbone)
        frame = self.opens("join", told.model_copy(update={"base": base}))
        assert frame.kind is Kind.READY
        return setup

    def trains(
        self, setup: Setup, round: int, planted: Tree | None = None, *, task: str = "train"
    ) -> Reply | Failure:
        algorithm, start = setup.program.algorithms[task], setup.start.server
        state = {
            part: {name: (planted or {}).get(name, value) for name, value in tree.items()}
            for part, tree in start.items()
        }
        context = Context(0, "federated", round, round, ("ada",), 1)
        asked = Task(task, context, lambda c: algorithm.server.broadcast(state, c), {})
        frames = self.asks(Letter.of(f"r{round}", Asking([asked], number=0).frames(["ada"], set())))
        (record,) = [unpack(frame.data) for frame in frames if frame.kind is Kind.RECORD]
        assert isinstance(record, Reply | Failure)
        return record


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
