"""The runtimes that an experiment file can name: where the clients of a run live.

A function gets the setup, the run directory, and who hears what a user should know; its keyword
arguments are what the file can set, and it is a context manager.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import Field

from atoll.config import dump
from atoll.core import Runtime
from atoll.disk.files import make_folder
from atoll.experiment.identity import identity
from atoll.experiment.setup import Setup
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.processes import Processes
from atoll.runtimes.store import disk_store
from atoll.runtimes.workers import Hire

__all__ = ["inprocess", "processes"]

START = """
import json, sys
sys.path[:] = json.loads(sys.argv.pop(1))
from atoll.models.quiet import hush
hush()
from atoll.worker import main
main(sys.argv[1:])
"""
"""`python -m atoll.worker` on our own search path: the same Atoll, and the user's modules."""

Note = Callable[[str], None]


@contextmanager
def inprocess(setup: Setup, path: Path, note: Note) -> Iterator[Runtime]:
    """All clients in this process, in stacks of train.group_size."""
    store = disk_store(path / "client_state")
    yield InProcess(setup.data.clients, setup.program.algorithms, store)


@contextmanager
def processes(
    setup: Setup, path: Path, note: Note, *, workers: Annotated[int, Field(ge=1)] = 2
) -> Iterator[Runtime]:
    """Clients shared out to processes of one thread each, which load the experiment file of `path`.

    workers: at most this many, each with the base model in its memory; no more than clients.
    They share the clients' states on disk: a worker may die.
    """
    make_folder(path / "workers")
    # -P: no file of the user's hides a module of Python's before the search path is settled.
    python = (sys.executable, "-u", "-P", "-X", "faulthandler", "-W", "ignore", "-c", START)
    files = (str(path / "experiment.yaml"), "--state", str(path / "client_state"))
    bench = ("--group-size", str(setup.bench.group_size), "--device", str(setup.bench.device))
    command = (*python, json.dumps(sys.path), *files, *bench)
    hire = Hire(command, identity(setup, dump(setup.experiment)), path / "workers")
    rows = {client: setup.data.counts[client].train for client in setup.data.clients}
    with Processes(hire, rows, workers=workers, note=note) as runtime:
        yield runtime
