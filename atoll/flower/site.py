"""A site's two processes: a SuperNode, and the relay to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from time import monotonic

from atoll.flower.child import Child, Watch
from atoll.flower.engine import empty_home, environment, free_port
from atoll.flower.options import Relay, shelf_in
from atoll.flower.trouble import in_vain, trouble
from atoll.frames import Frame, Kind

__all__ = ["Connection", "Site"]


LOOK = 0.5
"""Seconds between two looks at whether the connection is there."""
TELL = 20.0
"""Seconds between two words about a server that does not answer."""


@dataclass(frozen=True)
class Connection:
    """Whom to connect to, and by which key; ca and key None: without TLS, on loopback."""

    server: str
    ca: Path | None = None
    key: Path | None = None


class Site:
    """Flower at a site; `folder` holds what it writes and its logs.

    take: what to say to a message, called in a thread of its own.
    """

    def __init__(
        self, connection: Connection, folder: Path, take: Callable[[bytes], bytes]
    ) -> None:
        self._connection, self._folder, self._take = connection, folder, take
        self._children: tuple[Child, ...] = ()
        self._watch, self._over = Watch(), Event()
        self._watcher: Thread | None = None

    def gone(self) -> str | None:
        """Which process has gone, if one has and it is time to start again; then none is left."""
        why = self._watch.gone(self._children)
        known = trouble(self._children[1].last_lines()) if why is not None else None
        return why if known is None else f"supernode has ended ({known})"

    def _in_vain(self) -> bool:
        """Whether nobody answers where the server should be."""
        node = self._children[1]
        return in_vain(node.last_lines(), node.quiet())

    def start(self) -> None:
        """Connect; the SuperNode tries until the server is there."""
        home, secret = empty_home(self._folder)
        port, env = free_port(), environment(home)
        node = Child(
            "atoll.flower.supernode", self._arguments(secret, port),
            env=env, log=self._folder / "supernode.log", told=lambda line: None,
        )  # fmt: skip
        relay = Relay(address=f"127.0.0.1:{port}", secret=secret, shelf=shelf_in(home))
        relayed = Child("atoll.flower.node", [relay.model_dump_json()],
                        env=env, log=self._folder / "node.log", heard=self._answer)  # fmt: skip
        self._children = (relayed, node)

    def _answer(self, frame: Frame) -> None:
        # A message comes seconds after the start.
        self._children[0].send(Frame(Kind.ANSWER, frame.number, self._take(frame.data)))

    def _arguments(self, secret: Path, port: int) -> Sequence[str]:
        """What `flower-supernode` is told."""
        common = ("--superlink", self._connection.server, "--host", "127.0.0.1",
                  "--port", str(port), "--isolation", "process",
                  "--superexec-auth-secret-file", str(secret))  # fmt: skip
        if self._connection.ca is None or self._connection.key is None:
            return (*common, "--insecure")
        return (*common, "--root-certificates", str(self._connection.ca),
                "--auth-supernode-private-key", str(self._connection.key))  # fmt: skip

    def close(self) -> None:
        """End both, for good."""
        self._over.set()
        if self._watcher is not None:
            self._watcher.join()
        for child in self._children:
            child.close()
        self._children = ()

    def keep_up(self, note: Callable[[str], None]) -> None:
        """Begin, and connect again where the connection has ended, in a thread of its own."""

        def watch() -> None:
            told = monotonic()
            while not self._over.wait(LOOK):
                why = self.gone()
                if why is not None:
                    note(f"the connection's {why}; connecting again")
                    self.start()
                elif monotonic() - told > TELL and self._in_vain():
                    told = monotonic()
                    note(f"nobody answers at {self._connection.server}; trying again")

        self.start()
        self._watcher = Thread(target=watch, daemon=True)
        self._watcher.start()
