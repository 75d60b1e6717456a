"""The coordinator's SuperLink: `main([PUBLIC, …])`, PUBLIC the host:port that sites connect to.

The other arguments are those of `flower-superlink`, whose own host and port are private: only
processes of this machine get there. Each line on standard output tells of someone refused.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import cast

import uvicorn

from atoll.flower.engine import watch_parent
from atoll.flower.gate import App, gated

__all__ = ["main"]

AGAIN = 60.0
"""Seconds in which the same refusal is told once."""


def main(arguments: Sequence[str]) -> None:
    """Serve until the process that started this one ends."""
    watch_parent()
    host, _, port = arguments[0].rpartition(":")
    told = os.dup(1)
    os.dup2(2, 1)
    public = _listening(host.strip("[]"), int(port))
    _open_to(public, _teller(told))
    sys.argv = ["flower-superlink", *arguments[1:]]
    from flwr.superlink.cli import flower_superlink

    flower_superlink()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind((host, port))
    return found


def _open_to(public: socket.socket, tell: Callable[[str], None]) -> None:
    """Have uvicorn, which Flower calls, serve on the public socket too, behind the gate."""

    def server(config: uvicorn.Config) -> uvicorn.Server:
        app = cast(App, config.app)
        config.app = gated(app, port=public.getsockname()[1], tell=tell)
        made = uvicorn.Server(config)
        vars(made)["run"] = partial(made.run, [config.bind_socket(), public])
        return made

    # The package's own `main` is a function.
    vars(import_module("uvicorn.main"))["Server"] = server


def _teller(descriptor: int) -> Callable[[str], None]:
    told: dict[str, float] = {}

    def tell(text: str) -> None:
        now = time.monotonic()
        if now - told.get(text, -AGAIN) >= AGAIN:
            told[text] = now
            os.write(descriptor, f"{text}\n".encode(errors="replace"))

    return tell
