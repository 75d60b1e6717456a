"""A federation as people start it: a server and its sites, each a process of the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from atoll.certs.begin import begin
from atoll.flower.engine import free_port
from tests.support.nets import Network

__all__ = ["ATOLL", "People", "Started", "federation", "waited"]

ATOLL = str(Path(sys.executable).with_name("atoll"))


def waited(for_what: Callable[[], bool], *, seconds: float = 120.0) -> None:
    """Until it is so."""
    end = time.monotonic() + seconds
    while not for_what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


class Started:
    """A command that runs, and what it has said; a killed one may be started again.

    inside: what stands before the command, as one that leads to another network.
    """

    def __init__(
        self, words: Sequence[str], log: Path, folder: Path, inside: Sequence[str] = ()
    ) -> None:
        self._words, self._log, self._folder = (*inside, ATOLL, *words), log, folder
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        # Outside of the test's own process group, as in another shell.
        with self._log.open("ab") as opened:
            return subprocess.Popen(
                self._words, cwd=self._folder, stdout=opened, stderr=opened,
                env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
                start_new_session=True,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self._log.read_text()

    def part(self, module: str) -> psutil.Process:
        """The process of the engine that runs a module, as `atoll.flower.link`."""
        for one in psutil.Process(self.process.pid).children(recursive=True):
            if module in one.cmdline():
                return one
        raise AssertionError(f"no {module}")

    def kill(self) -> None:
        """As a machine that loses its power."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def again(self) -> None:
        self.process = self._start()

    def ask_to_end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()

    def end(self) -> None:
        """Until it has, or it is killed."""
        if self.process.poll() is None:
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()


class People:
    """Who started what: the server, and the sites by name.

    network: where each client lives; None where all are on this machine's own.
    """

    def __init__(
        self, folder: Path, clients: Sequence[str], network: Network | None = None
    ) -> None:
        self.folder, self.port, self.clients = folder, free_port(), tuple(clients)
        self._network, self._address = network, network.address if network else "127.0.0.1"
        begin(folder / "fed", ["localhost", self._address], list(clients), None)
        # Models of a few neurons, at the rates that they need, change as no real one does.
        (folder / "policy.yaml").write_text(
            "label_names: true\nmin_rows: 1\nmodels: any\nguard: false\n"
        )
        self.sites: dict[str, Started] = {}
        self.server: Started | None = None

    def coordinate(self, *words: str) -> Started:
        """`atoll server WORDS`."""
        listen = f"{self._address}:{self.port}"
        found = ("server", *words, "--listen", listen, "--certs", "fed/server")
        self.server = Started(found, self.folder / "server.log", self.folder)
        return self.server

    def join(self, client: str, *words: str, certs: str = "") -> Started:
        """`atoll client`, with the rows in data/CLIENT."""
        host = self._network.address if self._network else "localhost"
        inside = self._network.inside(client) if self._network else ()
        found = (
            "client", "--connect", f"{host}:{self.port}", "--certs", certs or f"fed/{client}",
            "--data", f"data/{client}", "--policy", "policy.yaml", *words,
        )  # fmt: skip
        self.sites[client] = Started(found, self.folder / f"{client}.log", self.folder, inside)
        return self.sites[client]

    def together(self, file: str, *, seconds: float = 400) -> None:
        """A run of all clients, which has to end well."""
        server = self.coordinate(file)
        for client in self.clients:
            self.join(client)
        waited(lambda: server.process.poll() is not None, seconds=seconds)
        assert server.process.returncode == 0, server.said

    def end(self) -> None:
        started = [*self.sites.values(), *([self.server] if self.server else [])]
        for one in started:
            one.ask_to_end()
        for one in started:
            one.end()


@contextmanager
def federation(
    folder: Path, clients: Sequence[str], network: Network | None = None
) -> Iterator[People]:
    """Certificates and a policy in a folder; in the end nothing runs any more."""
    people = People(folder, clients, network)
    try:
        yield people
    finally:
        people.end()
