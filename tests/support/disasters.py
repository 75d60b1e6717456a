"""What befalls a federation of processes, by a seed: deaths, cuts, and slowness."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

import psutil

from tests.support.nets import Network
from tests.support.sites import People, Started

__all__ = ["KINDS", "Disasters", "dealt"]

KINDS = ("client", "server", "link", "cut", "slow")


def dealt(draw: random.Random, each: int, rounds: int) -> list[list[str]]:
    """So many of each kind, in any order, over rounds."""
    drawn = [kind for kind in KINDS for _ in range(each)]
    draw.shuffle(drawn)
    found: list[list[str]] = [[] for _ in range(rounds)]
    for place, kind in enumerate(drawn):
        found[place * rounds // len(drawn)].append(kind)
    return found


class Disasters:
    """Strikes one after the other; `done`: how many of each kind there were.

    network: whose cables are pulled; where there is none, a client's SuperNode is stopped.
    """

    def __init__(self, people: People, draw: random.Random, network: Network | None) -> None:
        self.done = Counter[str]()
        self.draw, self._people, self._network = draw, people, network
        self._undoing: list[tuple[float, Callable[[], None]]] = []

    def strike(self, kind: str) -> None:
        """One of `KINDS`, at a client that is drawn."""
        client = self.draw.choice(self._people.clients)
        self.done[kind] += 1
        match kind:
            case "client":
                _kill_all(self._people.sites[client])
                self._people.sites[client].again()
            case "server":
                assert self._people.server is not None
                self._people.server.kill()
                self._people.server.again()
            case "link":
                assert self._people.server is not None
                for one in _parts(self._people.server, "atoll.flower.link"):
                    one.kill()
            case "cut":
                self._cut(client, self.draw.uniform(2, 8))
            case "slow":
                self._stop(_parts(self._people.sites[client]), self.draw.uniform(2, 6))

    def pass_over(self, *, all_of_them: bool = False) -> None:
        """Undo what has lasted as long as it should."""
        for one in list(self._undoing):
            end, undo = one
            if all_of_them or monotonic() > end:
                self._undoing.remove(one)
                undo()

    def _cut(self, client: str, seconds: float) -> None:
        if self._network is None:
            self._stop(_parts(self._people.sites[client], "atoll.flower.supernode"), seconds)
            return
        network = self._network
        network.cut(client)
        self._undoing.append((monotonic() + seconds, lambda: network.mend(client)))

    def _stop(self, processes: list[psutil.Process], seconds: float) -> None:
        for one in processes:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGSTOP)
            self._undoing.append((monotonic() + seconds, lambda one=one: _go_on(one)))


def _go_on(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGCONT)


def _kill_all(started: Started) -> None:
    """The machine loses its power: nothing of it is told to end."""
    children = psutil.Process(started.process.pid).children(recursive=True)
    started.kill()
    for one in children:
        with suppress(psutil.NoSuchProcess):
            one.kill()


def _parts(started: Started, module: str = "") -> list[psutil.Process]:
    """The process itself, or those of its children that run a module; none while it has none."""
    found = []
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(started.process.pid)
        if not module:
            return [process]
        for one in process.children(recursive=True):
            with suppress(psutil.Error):
                if module in one.cmdline():
                    found.append(one)
    return found
