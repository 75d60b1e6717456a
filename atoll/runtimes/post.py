"""Letters of a server to its clients: sent, asked after, and gathered in the spool."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from time import monotonic

from atoll.errors import PayloadError
from atoll.flower.coordinator import Coordinator, Place
from atoll.flower.parcels import Label, sealed
from atoll.frames import Frame, Kind
from atoll.runtimes.account import Question
from atoll.runtimes.hearing import heard
from atoll.runtimes.incoming import read_answer
from atoll.runtimes.letters import OPENING, Call, Letter, Piece, packed
from atoll.runtimes.lines import Line

__all__ = ["Post"]

LARGE = 2
"""Large pieces of answers that are on their way at once, whoever sends them."""
MEMBERS = 5.0
"""Seconds between two looks at who takes part."""
Note = Callable[[str], None]
Members = Callable[[], Mapping[str, str]]


class Post:
    """The lines to all clients; a context manager.

    run: the federation's name.   folder: of logs and the spool.
    members: who takes part at this moment, public keys as PEM by name; asked every few seconds.
    note: hears of who was refused, and of processes that had to be started again.
    spool, sent: where answers are kept, and the question that clients are asked now.
    """

    def __init__(self, place: Place, run: str, folder: Path, members: Members, note: Note) -> None:
        self.lines: dict[str, Line] = {}
        self.question: Question | None = None
        self._run, self._folder, self._note = run, folder, note
        self.spool, self.sent = folder / "spool", folder / "sent"
        self._members_now, self._admitted = members, 0.0
        self._open = place.ca is None
        # A bounded queue: the relay waits, and pulls no more than fits.
        self._frames: Queue[Frame] = Queue(maxsize=4)
        self._engine = Coordinator(place, folder, heard=self._frames.put, told=note)
        self._members: dict[str, str] = {}
        self._tags: dict[int, str] = {}
        self._asked: dict[int, int] = {}
        self._named: dict[int, str] = {}
        self._tag = 0

    def __enter__(self) -> Post:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._start()
        self._admit()
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()

    def _admit(self) -> None:
        """Let exactly those connect who take part now."""
        self._admitted = monotonic()
        members = dict(self._members_now())
        for name in self.lines.keys() - members.keys():
            del self.lines[name]
        for name in members.keys() - self.lines.keys():
            self.lines[name] = Line(name, self._run, self.spool)
        if members != self._members:
            self._members = members
            self._tell_members()

    def _tell_members(self) -> None:
        if not self._open:
            self._engine.send(Frame(Kind.NEWS, 0, json.dumps(self._members).encode()))

    def send(self, client: str, letter: Letter, *, limit: int, likely: int = 0) -> None:
        """Have a client answer a letter; the one before is not waited for any more."""
        self.lines[client].send(letter, limit=limit, likely=likely)

    def forget(self, clients: Iterable[str]) -> None:
        """Their letters are not waited for any more; what is still on its way is not read."""
        for client in clients:
            if client in self.lines:
                self.lines[client].letter = None

    def pump(self, seconds: float) -> Iterator[tuple[str, str]]:
        """Move messages for so long; (client, why) of whatever could not be read."""
        gone = self._engine.gone()
        if gone is not None:
            self._note(f"Flower's {gone}; it is started again")
            self._start()
        if monotonic() - self._admitted > MEMBERS:
            self._admit()
        self._push_all()
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            try:
                frame = self._frames.get(timeout=left)
            except Empty:
                return
            if frame.kind is Kind.NEWS:
                self._news(json.loads(frame.data))
            elif (node := self._asked.pop(frame.number, None)) is not None:
                self._name(node, frame)
            elif (line := self.lines.get(self._tags.pop(frame.number, ""))) is not None:
                why = heard(line, frame, self._note)
                self._push_all()
                if why:
                    yield line.client, why
                if line.done or why:
                    return

    def _push_all(self) -> None:
        """Who was sent something last has the last turn."""
        for line in sorted(self.lines.values(), key=lambda one: one.served):
            self._push(line)

    def _push(self, line: Line) -> None:
        while (due := line.due()) is not None:
            call, body = due
            if call.fetch is not None and line.large and self._fetching() >= LARGE:
                return
            self._tag += 1
            self._tags[self._tag] = line.client
            line.went(self._tag, call, body.size)
            assert line.node is not None
            self._call(Label(node=line.node, stored=body.stored, into=line.place(call)), call, body)

    def _call(self, label: Label, call: Call, body: Piece) -> None:
        parcel = sealed(label, packed(call, [body.rest]))
        self._engine.send(Frame(Kind.CALL, self._tag, parcel))

    def _fetching(self) -> int:
        return sum(line.fetching for line in self.lines.values())

    def _news(self, news: dict[str, object]) -> None:
        """Who is connected now, or what the relay has to say."""
        if "told" in news:
            self._note(str(news["told"]))
            return
        nodes = news["nodes"]
        assert isinstance(nodes, list)
        there = set()
        for node in nodes:
            name = node["name"] or self._named.get(node["node"])
            if name in self.lines:
                self.lines[name].connected(node["node"], node["since"])
                there.add(name)
            elif self._open and name is None:
                self._ask_name(node["node"])
        for name, line in self.lines.items():
            if name not in there and line.node is not None:
                line.node = None

    def _ask_name(self, node: int) -> None:
        """Without keys, a client is who it says it is."""
        if node not in self._asked.values():
            letter = Letter.of(f"{OPENING}-name", [])
            call = Call(run=self._run, letter=letter.name, size=0, digest=letter.digest)
            self._tag += 1
            self._asked[self._tag] = node
            self._call(Label(node=node), call, Piece())

    def _name(self, node: int, frame: Frame) -> None:
        with suppress(PayloadError):
            answer, _ = read_answer(frame.data)
            if answer is not None:
                self._named[node] = answer.client
                if answer.client in self.lines:
                    self.lines[answer.client].connected(node, "")

    def _start(self) -> None:
        self._tags.clear()
        self._asked.clear()
        self._named.clear()
        for line in self.lines.values():
            line.node = None
        self._engine.start()
        self._tell_members()
