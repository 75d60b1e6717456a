"""A federation in one process: the server's whole half, sites in threads, and no Flower between.

What a test replaces is only how bytes travel (`Wire`), so that it decides which are lost, late,
doubled or another's, and what a site answers (`Peer`, or any function of bytes).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Thread, Timer
from typing import Any

import pytest
import torch

from atoll.aggregators import mean
from atoll.core import (
    Algorithm,
    Channel,
    ClientWork,
    Failure,
    Federation,
    Payload,
    Position,
    Program,
    Reply,
    Report,
    Request,
)
from atoll.flower.coordinator import Place
from atoll.flower.parcels import opened, whole
from atoll.frames import Frame, Kind
from atoll.round import federate
from atoll.runtimes.flower_client import Guard, answer_ask, refusal
from atoll.runtimes.flower_server import Flower
from atoll.runtimes.gathering import Closing
from atoll.runtimes.held import Held
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.letters import OPENING, Letter
from atoll.runtimes.mailbox import Mailbox, Received
from atoll.runtimes.opener import Opener
from atoll.runtimes.post import Post
from atoll.runtimes.store import disk_store
from atoll.servers import average
from atoll.stages import by_examples

__all__ = ["RUN", "Killed", "Peer", "Wire", "accuracy", "rounds", "toy"]

RUN = 32 * "a"
SIZE = 8
Take = Callable[[bytes], bytes | None]
Change = Callable[[Payload], Payload]
Fate = Callable[[str, bytes], Sequence[float]]


class Wire:
    """In Flower's place: brings each message to a site, and what it answers back.

    sites: what each says to a message, None where the answer never comes.
    fate: (client, answer) -> the seconds after which it comes: none, one or several.
    """

    def __init__(self, sites: Mapping[str, Take], fate: Fate = lambda client, data: (0.0,)) -> None:
        self.sites, self.fate = dict(sites), fate
        self.absent: set[str] = set()
        self.starts, self.sent = 0, list[tuple[str, int]]()
        self.kill_server = self.kill_link = False
        self._members: list[str] = []
        self._queues: dict[str, SimpleQueue[Any]] = {}

    def __call__(self, place: Place, folder: Path, *, heard: Any, told: Any) -> Wire:
        self._heard = heard
        return self

    def gone(self) -> str | None:
        """Looked at by the server again and again; here it may die, or lose its SuperLink."""
        if self.kill_server:
            self.kill_server = False
            raise Killed
        if self.kill_link:
            self.kill_link = False
            return "link has ended"
        return None

    def start(self) -> None:
        self.starts += 1

    def close(self) -> None:
        for queue in self._queues.values():
            queue.put(None)
        self._queues = {}

    def send(self, frame: Frame) -> None:
        if frame.kind is Kind.NEWS:
            self._members = sorted(json.loads(frame.data))
            self.tell()
            return
        label, message = opened(frame.data)
        client = self._members[label.node - 1]
        self.sent.append((client, len(frame.data)))
        if client not in self._queues:
            self._queues[client] = SimpleQueue()
            serving = (client, self._queues[client])
            Thread(target=self._serve, args=serving, daemon=True).start()
        self._queues[client].put((frame.number, whole(label, message)))

    def tell(self) -> None:
        """Who is connected now, from a thread of its own as it comes from a relay."""
        nodes = [
            {"node": place + 1, "name": name, "since": str(self.starts)}
            for place, name in enumerate(self._members)
            if name in self.sites and name not in self.absent
        ]
        data = json.dumps({"nodes": nodes}).encode()
        Thread(target=self._heard, args=(Frame(Kind.NEWS, 0, data),), daemon=True).start()

    def _serve(self, client: str, queue: SimpleQueue[Any]) -> None:
        heard = self._heard
        while (asked := queue.get()) is not None:
            number, data = asked
            answer = None if client in self.absent else self.sites[client](data)
            if answer is None:
                continue
            frame = Frame(Kind.ANSWER, number, b"+" + answer)
            for seconds in self.fate(client, answer):
                if seconds == 0:
                    heard(frame)
                else:
                    late = Timer(seconds, heard, (frame,))
                    late.daemon = True
                    late.start()


class Killed(BaseException):
    """What ends a site's worker in the middle of its work."""


class Peer:
    """A site that works: a mailbox, and a thread that answers letters."""

    def __init__(self, folder: Path, name: str, algorithms: Mapping[str, Algorithm]) -> None:
        self.name, self.alive = name, True
        self._runtime = InProcess((name,), algorithms, disk_store(folder / "own"))
        self._held = Held(algorithms)
        self._open: set[str] = set()
        self._mailbox = Mailbox(folder, name, self._open.__contains__)
        Thread(target=self._work, daemon=True).start()

    def __call__(self, data: bytes) -> bytes | None:
        return self._mailbox.take(data) if self.alive else None

    def kill(self) -> None:
        """Nothing of it comes any more, and it writes nothing more."""
        self.alive = False

    def _work(self) -> None:
        for letter in self._mailbox.letters():
            try:
                self._mailbox.answer(letter, lambda send, letter=letter: self._say(letter, send))
            except Killed:
                return

    def _say(self, letter: Received, send: Callable[[Frame], None]) -> None:
        def said(frame: Frame) -> None:
            if not self.alive:
                raise Killed
            send(frame)

        if letter.name.startswith(OPENING):
            self._open.add(letter.run)
            said(Frame(Kind.READY, 0, b"{}"))
            return
        try:
            answer_ask(self._runtime, FREE, self._held, letter.data, said)
        except Exception as error:
            said(refusal(error))


FREE = Guard(
    begin=lambda tasks: None, release=lambda payload: payload,
    told=lambda failure: failure, leaving=lambda task, record, data: None,
    failed=lambda data: None,
)  # fmt: skip


def rows(client: str, number: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Points and their side of one plane, each client with a lean of its own."""
    draw = torch.Generator().manual_seed(sum(client.encode()))
    points = torch.randn(number, SIZE, generator=draw) + torch.randn(SIZE, generator=draw) / 4
    return points, (points @ torch.arange(1.0, SIZE + 1) > 0).float()


def _payload(update: torch.Tensor, count: float) -> Payload:
    return {
        "update": Channel({"w": update}, "mean", weight="weight"),
        "weight": Channel({"value": torch.tensor(1.0)}, "sum"),
        "examples": Channel({"count": torch.tensor(count)}, "sum"),
    }


def _work(requests: Sequence[Request], change: Change) -> Iterator[Reply | Failure]:
    for request in requests:
        points, sides = rows(request.context.client)
        old = w = request.payload["adapter"].tree["w"]
        for _ in range(5):
            w = w - points.T @ (torch.sigmoid(points @ w) - sides) / len(points)
        payload = _payload(w - old, float(len(points)))
        yield Reply(request.context.client, change(payload))


def toy(change: Change = lambda payload: payload) -> Algorithm:
    """Logistic regression of a few numbers, averaged; a client may change what it sends."""
    work = ClientWork(
        "fit", lambda broadcast: _payload(broadcast["adapter"].tree["w"].to("meta"), 0.0),
        lambda requests: _work(requests, change), ("update", "weight", "examples"),
    )  # fmt: skip
    return Algorithm("fit", work, (by_examples(),), mean(), average())


def accuracy(w: torch.Tensor, clients: Sequence[str]) -> float:
    """The share of all clients' points that stand on the right side."""
    found = [((points @ w > 0).float() == sides) for points, sides in map(rows, clients)]
    return float(torch.cat(found).float().mean())


@contextmanager
def rounds(
    wire: Wire, folder: Path, monkeypatch: pytest.MonkeyPatch, *, number: int, closing: Closing,
    told: list[str], later: Sequence[str] = (), staleness: float = 1.0,
    start: Position | None = None, algorithm: Algorithm | None = None,
    beside: Mapping[str, Algorithm] | None = None,
) -> Iterator[Iterator[Report]]:  # fmt: skip
    """The reports of a federation over the wire, with all sites in it.

    later: who of them may connect, and was not there when it began.
    start: where an earlier server was.   beside: algorithms whose questions are asked in between.
    """
    monkeypatch.setattr("atoll.runtimes.post.Coordinator", wire)
    clients = tuple(sorted(wire.sites))
    opener = Opener(
        Letter.of(f"{OPENING}-join", [Frame(Kind.OPEN, 0, b"{}")]),
        lambda client, frames: None if [one.kind for one in frames] == [Kind.READY] else "odd",
    )
    place = Place("127.0.0.1:0", ca=Path("ca.pem"))
    algorithms = {"fit": algorithm or toy(), **(beside or {})}
    members = dict.fromkeys(clients, "key")
    with Post(place, RUN, folder, lambda: members, told.append) as post:
        began = [client for client in clients if client not in later]
        runtime = Flower(post, began, algorithms, opener, closing, note=told.append)
        program = Program(algorithms, lambda number: ("fit",) if number else ())
        plan = Federation(seed=1, run=RUN, num_rounds=number, clients_per_round=len(clients),
                          min_clients=closing.quorum, staleness=staleness)  # fmt: skip
        begin = Position({"adapter": {"w": torch.zeros(SIZE)}}, round=0)
        yield federate(program, runtime, plan, start or begin)
