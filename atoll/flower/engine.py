"""What all processes of the engine share: their surroundings, their pipes, and their end."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import secrets
import select
import shutil
import socket
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from threading import Thread
from typing import TypeVar

__all__ = [
    "PART",
    "command",
    "empty_home",
    "end_with",
    "environment",
    "free_port",
    "give_back",
    "let_go",
    "patiently",
    "settled",
    "watch_parent",
]

T = TypeVar("T")

PART = 63 * 2**20
"""Bytes of ours in one message of Flower, so that the whole stays below 64 MiB."""
LARGE, ARENAS = 2**18, 2
PIECES = 2**24
"""Bytes up to which memory is used again in a relay: pieces of a message come and go there."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Of malloc.h."""
START = """
import json, sys
sys.path[:] = json.loads(sys.argv.pop(1))
from importlib import import_module
import_module(sys.argv.pop(1)).main(sys.argv[1:])
"""


def command(module: str, arguments: list[str]) -> tuple[str, ...]:
    """Run `main(arguments)` of a module in a new interpreter, on our own search path."""
    return (sys.executable, "-P", "-W", "ignore", "-c", START, json.dumps(sys.path), module,
            *arguments)  # fmt: skip


def empty_home(folder: Path) -> tuple[Path, Path]:
    """Where Flower keeps its files, emptied; and there a new secret, which two processes share."""
    home = folder / "engine"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True, mode=0o700)
    secret = home / "secret"
    secret.touch(0o600)
    secret.write_bytes(secrets.token_bytes(32))
    return home, secret


def environment(home: Path) -> dict[str, str]:
    """A child's environment: Flower keeps its files in `home`, reports nothing, asks nobody."""
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "MALLOC_ARENA_MAX": str(ARENAS),
        "MALLOC_MMAP_THRESHOLD_": str(PIECES),
        "MALLOC_TRIM_THRESHOLD_": str(PIECES),
    }


def give_back() -> None:
    """Have large buffers go back to the system as soon as they are free, in whatever thread.

    glibc raises its threshold to the largest buffer that was freed, and keeps what is below.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        for what, value in ((M_MMAP_THRESHOLD, LARGE), (M_TRIM_THRESHOLD, LARGE),
                            (M_ARENA_MAX, ARENAS)):  # fmt: skip
            libc.mallopt(what, value)


def settled() -> None:
    """What is in memory now stays: `let_go` need not look at it again."""
    gc.collect()
    gc.freeze()


def let_go() -> None:
    """Free what only holds itself: a web server leaves each request so, with all of its bytes.

    Python would come to it when there are many; here a few are as large as a payload.
    """
    gc.collect()


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def watch_parent() -> None:
    """End this process when the one that started it ends, however that ends."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)

    Thread(target=watch, daemon=True).start()


def end_with(descriptor: int) -> None:
    """End this process when nobody holds the other end of a pipe, which others read."""

    def watch() -> None:
        found = select.poll()
        found.register(descriptor, 0)
        found.poll()
        os._exit(0)

    Thread(target=watch, daemon=True).start()


def patiently(ask: Callable[[], T], errors: tuple[type[Exception], ...], *, seconds: float) -> T:
    """What `ask` gives, tried until it raises none of `errors`; then the last of them."""
    end, pause = time.monotonic() + seconds, 0.05
    while True:
        try:
            return ask()
        except errors:
            if time.monotonic() > end:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 1.0)
