"""A server that asks one site, `ada`, by letters, without a network between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Thread

from atoll.config import dump, load
from atoll.core import Context, Failure, Reply, Task
from atoll.core.wire import unpack
from atoll.experiment.joining import Place
from atoll.experiment.local_arm import LOCAL, local_arm
from atoll.experiment.offers import agreed, server_data, versions
from atoll.experiment.opening import opening_letter
from atoll.experiment.parties import private_of
from atoll.experiment.setup import Setup, prepare
from atoll.experiment.terms import Agreed, Offer, Opening
from atoll.frames import Frame, Kind
from atoll.models.locate import fingerprint
from atoll.policy import Policy
from atoll.runtimes.asking import Asking
from atoll.runtimes.letters import Answer, Call, Letter, frames_in, packed, unpacked
from atoll.runtimes.mailbox import Mailbox
from atoll.runtimes.messages import read
from atoll.site import Site
from atoll.status import Doing
from atoll.tree import Tree
from tests.support.departures import open_record, site
from tests.support.federation import LABELS, labelled_rows
from tests.support.models import Zoo
from tests.support.scenes import write_clients

__all__ = ["FULL", "POLICY", "RUN", "WHOLE", "Server"]

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
        privacy: Mapping[str, object] | None = None,
    ) -> None:
        self.state, self.doing = folder / "state", Doing("localhost:9092")
        write_clients(folder / "data", labelled_rows({"ada": 9}))
        written: dict[str, dict[str, object]] = {
            "model": {"name_or_path": zoo("bert"), "pooling": "mean"},
            "data": {"path": str(folder / "data"), "max_length": 24},
            "adapter": {**adapter},
            "train": {"device": "cpu", "group_size": 1, "max_steps": 1},
        }
        if privacy is not None:
            written |= {"privacy": {**privacy}, "federation": {"num_rounds": 3}}
            written["data"] |= {"labels": sorted(LABELS)}
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

    def looks(self) -> Setup:
        """What a server has once it has looked at all offers, and `told` what is agreed."""
        offers = {"ada": read(Offer, self.opens("look", None).data)}
        told = agreed(self.loaded.experiment, offers, "")
        data = server_data(self.loaded.experiment, offers, told)
        setup = prepare(self.loaded, note=lambda text: None, data=data)
        base = fingerprint(setup.base.backbone)
        private = private_of(setup.protection or setup.rows)
        self.told = told.model_copy(update={"base": base, "private": private})
        return setup

    def agrees(self) -> Setup:
        """The same, and the site opened for it."""
        setup = self.looks()
        assert self.opens("join", self.told).kind is Kind.READY
        return setup

    def trains(
        self, setup: Setup, round: int, planted: Tree | None = None, *, task: str = "train"
    ) -> Reply | Failure:
        algorithm = local_arm(setup) if task == LOCAL else setup.program.algorithms[task]
        start = setup.start.server
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
