"""What an operator asks of the SuperLink: who may connect, and a run to send messages in."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import httpx
from flwr.cli.build import build_fab_from_files
from flwr.cli.cli_client_interceptor import CliClientHttpInterceptor
from flwr.proto.control_pb2 import (
    RegisterNodeRequest,
    StartRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from atoll.errors import RunError
from atoll.flower.engine import patiently
from atoll.flower.options import Relay
from atoll.flower.tasks import START

__all__ = ["Operator"]

APP = """
[project]
name = "federation"
version = "1.0.0"
description = "Messages of Atoll"
license = "Apache-2.0"
dependencies = ["flwr"]
[tool.flwr.app]
publisher = "atoll"
[tool.flwr.app.components]
serverapp = "federation:app"
clientapp = "federation:app"
"""
"""An app that holds no code: Flower wants one for a run, and ours is never run."""


class Operator:
    """The Control API of one SuperLink; `members`: the keys that may connect, by name."""

    def __init__(self, relay: Relay, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._nodes: dict[str, tuple[str, int]] = {}
        self._client = ControlHttpClient.from_server_address(
            relay.address,
            relay.ca is None,
            relay.root,
            [CliClientHttpInterceptor(), RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
        )

    def start_run(self) -> None:
        """Begin a run, once Flower is there.

        Raises:
            RunError: when it refuses.
        """
        files = {"pyproject.toml": APP.encode(), "federation.py": b"", "LICENSE": b"Apache-2.0"}
        fab, _ = build_fab_from_files(files)
        request = StartRunRequest(fab=Fab(content=fab))
        found = patiently(lambda: self._client.StartRun(request), (httpx.HTTPError,), seconds=START)
        if not found.HasField("run_id"):
            raise RunError("Flower's SuperLink started no run")

    def admit(self, members: Mapping[str, str]) -> None:
        """Let exactly these connect: public keys as PEM, by name."""
        for name, (key, node) in list(self._nodes.items()):
            if members.get(name) != key:
                self._client.UnregisterNode(UnregisterNodeRequest(node_id=node))
                del self._nodes[name]
        for name, key in members.items():
            if name in self._nodes:
                continue
            request = RegisterNodeRequest(public_key=key.encode(), name=name)
            try:
                self._nodes[name] = (key, self._client.RegisterNode(request).node_id)
            except httpx.HTTPStatusError as error:
                self._tell(f"the key of {name} is refused by the SuperLink: {error}")
