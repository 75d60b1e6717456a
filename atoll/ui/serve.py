"""A page on this machine, served by a thread beside what the process is for."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

import uvicorn

from atoll.errors import ConfigError
from atoll.ui.app import page
from atoll.ui.guard import Keys, guarded
from atoll.ui.views import View

__all__ = ["served"]

HERE = "127.0.0.1"
END = 3.0
"""Seconds for which the end of the page is waited for."""
MANY = 100
"""Connections at once, above which none is answered."""


@contextmanager
def served(view: View, port: int, *, note: Callable[[str], None]) -> Iterator[str]:
    """Serve a page on a port of this machine, 0 for any that is free; gives its address.

    note: hears of what goes wrong, which ends nothing but the page.

    Raises:
        ConfigError: when the port is taken.
    """
    listening = _listening(port)
    port = listening.getsockname()[1]
    keys = Keys()
    config = uvicorn.Config(
        guarded(page(view, keys), keys, port=port, note=note),
        # Requests, whose first one has the token, are written nowhere.
        log_config=None, log_level="critical", access_log=False, server_header=False,
        lifespan="off", ws="none", limit_concurrency=MANY, timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = Thread(target=_run, args=(server, listening, note), daemon=True)
    thread.start()
    try:
        yield f"http://{HERE}:{port}/?token={keys.look}"
    finally:
        server.should_exit = True
        thread.join(END)


def _listening(port: int) -> socket.socket:
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HERE, port))
        # Whoever asks before the thread has begun waits for it.
        found.listen()
    except OSError as error:
        found.close()
        raise ConfigError(
            f"--ui {port}: {HERE}:{port} cannot be used ({error.strerror}); name another port, or "
            "none for one that is free"
        ) from error
    return found


def _run(server: uvicorn.Server, listening: socket.socket, note: Callable[[str], None]) -> None:
    try:
        server.run([listening])
    except BaseException as error:
        note(f"the page has ended: {type(error).__name__}: {error}")
