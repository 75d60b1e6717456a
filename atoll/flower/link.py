"""The coordinator's SuperLink: `main([PUBLIC, …])`, PUBLIC the host:port that sites connect to.

The other arguments are those of `flower-superlink`, whose own host and port are private: only
processes of this machine get there. Each line on standard output tells of someone refused.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from atoll.asgi import App
from atoll.flower.callers import Callers
from atoll.flower.engine import settled, watch_parent
from atoll.flower.gate import gated
from atoll.flower.options import shelf_in
from atoll.flower.shelf import keep_on_disk

__all__ = ["main"]

AGAIN = 60.0
"""Seconds in which the same refusal is told once …"""
MANY = 20
"""… and no more than so many."""
HURRY = 30.0
"""Seconds that a connection has to say what it wants."""


def main(arguments: Sequence[str]) -> None:
    """Serve until the process that started this one ends."""
    watch_parent()
    host, _, port = arguments[0].rpartition(":")
    told = os.dup(1)
    os.dup2(2, 1)
    public = _listening(host.strip("[]"), int(port))
    _open_to(public, _teller(told))
    keep_on_disk(shelf_in(Path(os.environ["FLWR_HOME"])))
    sys.argv = ["flower-superlink", *arguments[1:]]
    from flwr.superlink.cli import flower_superlink

    flower_superlink()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind((host, port))
    return found


class _Prompt(HttpToolsProtocol):
    """A connection on which nothing is asked for a while is closed, also in mid-word."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.late = self.loop.call_later(HURRY, self.transport.close)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.late.cancel()
        self.late = self.loop.call_later(HURRY, self.transport.close)

    def on_headers_complete(self) -> None:
        self.late.cancel()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self.late.cancel()
        super().connection_lost(exc)


def _open_to(public: socket.socket, tell: Callable[[str], None]) -> None:
    """Have uvicorn, which Flower calls, serve on the public socket too, behind the gate."""

    def server(config: uvicorn.Config) -> uvicorn.Server:
        app, port = cast(App, config.app), public.getsockname()[1]
        config.app = gated(app, port=port, callers=Callers(app), tell=tell)
        config.http, config.ws = _Prompt, "none"
        # Answers that wait for a message keep nobody from ending.
        config.timeout_graceful_shutdown = 1
        settled()
        made = uvicorn.Server(config)
        vars(made)["run"] = partial(made.run, [config.bind_socket(), public])
        return made

    # The package's own `main` is a function.
    vars(import_module("uvicorn.main"))["Server"] = server


def _teller(descriptor: int) -> Callable[[str], None]:
    told: dict[str, float] = {}

    def tell(text: str) -> None:
        now = time.monotonic()
        for old in [one for one, at in told.items() if now - at >= AGAIN]:
            del told[old]
        # Strangers choose what stands here.
        if text not in told and len(told) < MANY:
            told[text] = now
            os.write(descriptor, f"{text}\n".encode(errors="replace"))

    return tell
