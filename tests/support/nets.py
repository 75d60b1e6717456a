"""A network of a test's own: a namespace for each client, and a bridge to the server's side.

A cable is pulled as in a machine room: packets are lost, and no connection is told.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = ["Network", "network"]


class Network:
    """Where each client lives; `address` is the server's.

    Names and addresses are drawn, since other tests may run beside this one.
    """

    def __init__(self, clients: Sequence[str]) -> None:
        drawn = secrets.token_bytes(3)
        self._bridge, self._subnet = f"atoll{drawn.hex()}", f"10.{64 + drawn[0] % 64}.{drawn[1]}"
        self._numbers = {client: number for number, client in enumerate(clients, start=2)}
        self.address = f"{self._subnet}.1"

    def begin(self) -> None:
        """Make the bridge, and for each client a namespace with a cable to it."""
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("address", "add", f"{self.address}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for client, number in self._numbers.items():
            space, cable = self._space(client), self._cable(client)
            _ip("netns", "add", space)
            _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", cable, "master", self._bridge, "up")
            _ip("-n", space, "address", "add", f"{self._subnet}.{number}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
            _ip("-n", space, "link", "set", "lo", "up")

    def inside(self, client: str) -> tuple[str, ...]:
        """What stands before a command that runs in a client's namespace."""
        return ("ip", "netns", "exec", self._space(client))

    def cut(self, client: str) -> None:
        """Pull the client's cable."""
        _ip("link", "set", self._cable(client), "down")

    def mend(self, client: str) -> None:
        """Plug it in again."""
        _ip("link", "set", self._cable(client), "up")

    def end(self) -> None:
        """Leave nothing behind, whatever of it is there."""
        for client in self._numbers:
            # A cable goes with its namespace only when the last process has gone.
            for words in (("link", "delete", self._cable(client)),
                          ("netns", "delete", self._space(client))):  # fmt: skip
                _ip(*words, check=False)
        _ip("link", "delete", self._bridge, check=False)

    def _space(self, client: str) -> str:
        return f"{self._bridge}-{self._numbers[client]}"

    def _cable(self, client: str) -> str:
        # The kernel takes 15 characters.
        return f"{self._bridge}v{self._numbers[client]}"


@contextmanager
def network(clients: Sequence[str]) -> Iterator[Network | None]:
    """A network for these clients; None where this machine lets us make none."""
    found = Network(clients)
    try:
        yield found if _begun(found) else None
    finally:
        if shutil.which("ip"):
            found.end()


def _begun(network: Network) -> bool:
    if shutil.which("ip") is None:
        return False
    try:
        network.begin()
    except subprocess.CalledProcessError:
        return False
    return True


def _ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True)
