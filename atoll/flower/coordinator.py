"""The coordinator's two processes: a SuperLink, and the relay to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll.flower.child import Child, Watch
from atoll.flower.engine import empty_home, environment, free_port
from atoll.flower.options import Relay, shelf_in
from atoll.frames import Frame

__all__ = ["Coordinator", "Place"]


@dataclass(frozen=True)
class Place:
    """Where sites connect, and by which certificate; all None: without TLS, on loopback."""

    listen: str
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class Coordinator:
    """Flower at the server; `folder` holds what it writes and its logs.

    heard: gets the relay's frames.   told: hears of whoever was refused.
    """

    def __init__(
        self,
        place: Place,
        folder: Path,
        *,
        heard: Callable[[Frame], None],
        told: Callable[[str], None],
    ) -> None:
        self._place, self._folder, self._heard, self._told = place, folder, heard, told
        self._children: tuple[Child, ...] = ()
        self._watch = Watch()

    def gone(self) -> str | None:
        """Which process has gone, if one has and it is time to start again; then none is left."""
        return self._watch.gone(self._children)

    def start(self) -> None:
        """Begin with an empty SuperLink: what it held, clients are asked for again."""
        home, secret = empty_home(self._folder)
        port = free_port()
        env = environment(home)
        link = Child("atoll.flower.link", [self._place.listen, *self._arguments(home, port)],
                     env=env, log=self._folder / "link.log", told=self._told)  # fmt: skip
        relay = Relay(address=f"127.0.0.1:{port}", secret=secret, ca=self._place.ca,
                      shelf=shelf_in(home))  # fmt: skip
        grid = Child("atoll.flower.grid", [relay.model_dump_json()],
                     env=env, log=self._folder / "grid.log", heard=self._heard)  # fmt: skip
        self._children = (grid, link)

    def _arguments(self, home: Path, port: int) -> Sequence[str]:
        """What `flower-superlink` is told."""
        common = ("--host", "127.0.0.1", "--port", str(port), "--isolation", "process",
                  "--superexec-auth-secret-file", str(home / "secret"),
                  "--disable-runtime-dependency-installation")  # fmt: skip
        if self._place.ca is None:
            return (*common, "--insecure")
        tls = ("--ssl-ca-certfile", str(self._place.ca), "--ssl-certfile",
               str(self._place.certificate), "--ssl-keyfile", str(self._place.key))  # fmt: skip
        return (*common, *tls, "--enable-supernode-auth")

    def send(self, frame: Frame) -> None:
        """A frame for the relay."""
        self._children[0].send(frame)

    def close(self) -> None:
        """End both."""
        for child in self._children:
            child.close()
        self._children = ()
