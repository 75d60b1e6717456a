"""A federation in which everything dies, is cut off, is slow, is lost and comes twice, by a seed.

Here it is without processes, so that minutes of chaos take seconds; `tests/e2e` kills real ones.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread

import pytest

from atoll.core import Position, Report
from atoll.runtimes import gathering, mailbox, underway
from atoll.runtimes.gathering import Closing
from tests.support.wire import Killed, Peer, Wire, accuracy, rounds, toy

CLIENTS = tuple(f"site-{n}" for n in range(8))


@dataclass
class Chaos:
    """Faults from a seed, until it is over; `done`: how many of each there were."""

    seed: int
    folder: Path
    clients: tuple[str, ...]
    done: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.draw, self._lock, self._over = random.Random(self.seed), Lock(), Event()
        self.wire = Wire({client: self._peer(client) for client in self.clients}, self._fate)
        self._thread = Thread(target=self._harm)

    def __enter__(self) -> Wire:
        self._thread.start()
        return self.wire

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _peer(self, client: str) -> Peer:
        return Peer(self.folder / client, client, {"fit": toy()})

    def _fate(self, client: str, data: bytes) -> tuple[float, ...]:
        """Lost, twice, or late; the last client is slow."""
        with self._lock:
            chance, late = self.draw.random(), self.draw.uniform(0.01, 0.1)
        late *= 5 if client == self.clients[-1] else 1
        return () if chance < 0.1 else (late, 2 * late) if chance < 0.2 else (late,)

    def _harm(self) -> None:
        while not self._over.wait(0.5):
            with self._lock:
                kind = self.draw.choice(("client", "cut", "server", "link"))
                client = self.draw.choice(self.clients)
            self.done[kind] = self.done.get(kind, 0) + 1
            if kind == "client":
                self._kill(client)
            elif kind == "cut":
                self.wire.absent.add(client)
                self.wire.tell()
                self._over.wait(0.3)
                self.wire.absent.discard(client)
                self.wire.tell()
            elif kind == "server":
                self.wire.kill_server = True
            else:
                self.wire.kill_link = True

    def _kill(self, client: str) -> None:
        old = self.wire.sites[client]
        assert isinstance(old, Peer)
        old.kill()
        self.wire.sites[client] = self._peer(client)
        self.wire.starts += 1
        self.wire.tell()


def survived(
    wire: Wire, folder: Path, patch: pytest.MonkeyPatch, number: int, closing: Closing
) -> tuple[list[Report], list[str]]:
    """All rounds, by as many servers as it takes; each goes on from the last round that ended."""
    reports, told = list[Report](), list[str]()
    position: Position | None = None
    while len(reports) < number:
        try:
            with rounds(
                wire, folder, patch, number=number, closing=closing, told=told, start=position
            ) as found:
                for report in found:
                    reports.append(report)
                    position = report.position
        except Killed:
            told.append("the server dies")
    return reports, told


@pytest.mark.parametrize(
    ("number", "clients"), [(4, 3), pytest.param(20, 8, marks=pytest.mark.long)]
)
def test_chaos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, clients: int) -> None:
    for module, name, seconds in (
        (underway, "LOST", 0.3), (gathering, "AGAIN", 0.3), (mailbox, "PATIENCE", 0.05),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, seconds)
    names, closing = CLIENTS[:clients], Closing(quorum=clients - 1, grace=0.3)
    calm = Wire({one: Peer(tmp_path / "calm" / one, one, {"fit": toy()}) for one in names})
    expected, _ = survived(calm, tmp_path / "calm" / "s", monkeypatch, number, closing)

    chaos = Chaos(int.from_bytes(os.urandom(4)), tmp_path / "chaos", names)
    print(f"seed {chaos.seed}")
    began = time.monotonic()
    with chaos as wire:
        reports, told = survived(wire, tmp_path / "chaos" / "s", monkeypatch, number, closing)
    print(f"{time.monotonic() - began:.1f} s, {chaos.done}, {told.count('the server dies')} deaths")
    assert [report.round for report in reports] == list(range(1, number + 1))
    assert [report.position.exchanges for report in reports] == list(range(1, number + 1))
    for report in reports:
        (exchange,) = report.exchanges
        gone = {failure.client for failure in exchange.failures}
        assert set(exchange.clients) | gone == set(names)
        assert not set(exchange.clients) & gone
        assert len(exchange.clients) >= closing.quorum
    found = [accuracy(all_[-1].position.server["adapter"]["w"], names) for all_ in
             (reports, expected)]  # fmt: skip
    assert abs(found[0] - found[1]) <= 0.02
