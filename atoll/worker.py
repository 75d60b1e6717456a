"""A client's worker: `python -m atoll.worker EXPERIMENT.yaml …`, started by a runtime.

It rebuilds everything from the resolved experiment file, says what it loaded, and answers asks on
its standard input and output until the input ends, as it does when the parent is killed. What user
code prints goes to standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread

import torch

from atoll.config import dump, load
from atoll.errors import AtollError, PayloadError, RunError
from atoll.experiment.hiding import keep_noise
from atoll.experiment.identity import identity
from atoll.experiment.setup import Setup, prepare
from atoll.experiment.standing import Machine
from atoll.frames import Frame, Kind, pipes, read_frame, write_frame
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.messages import Identity, broken, read
from atoll.runtimes.serving import serve
from atoll.runtimes.store import disk_store

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Serve until the input ends, or the parent is of another run."""
    options = _options(arguments)
    incoming, outgoing = pipes()
    torch.set_num_threads(1)
    frames = _frames(incoming)

    def send(frame: Frame) -> None:
        write_frame(outgoing, frame)

    try:
        setup = _opened(options, next(frames), send)
    except AtollError as error:
        send(Frame(Kind.BROKEN, 0, broken(error)))
        return
    store = disk_store(options.state)
    runtime = InProcess(setup.data.clients, setup.program.algorithms, store)
    serve(runtime, frames, send)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m atoll.worker", description="A client's worker.")
    parser.add_argument("experiment", type=Path, help="the resolved experiment file")
    parser.add_argument("--state", type=Path, required=True, help="where clients keep their state")
    parser.add_argument("--group-size", type=int, required=True, help="clients in one forward pass")
    parser.add_argument("--device", required=True, help="where the model runs")
    return parser.parse_args(arguments)


def _frames(descriptor: int) -> Iterator[Frame]:
    """What comes, read by a thread of its own, which ends the process when the input ends.

    So a worker ends in the middle of its work, whoever killed its parent; a client's state on disk
    is whole at every instant.
    """
    waiting: SimpleQueue[Frame] = SimpleQueue()

    def listen() -> None:
        try:
            while (frame := read_frame(descriptor)) is not None:
                waiting.put(frame)
        except PayloadError as error:
            os.write(2, f"{error}\n".encode())
            os._exit(1)
        os._exit(0)

    Thread(target=listen, daemon=True).start()
    return iter(waiting.get, None)


def _opened(options: argparse.Namespace, opening: Frame, send: Callable[[Frame], None]) -> Setup:
    """Everything that the experiment file names, once both sides know that they mean the same.

    Raises:
        AtollError: what cannot be loaded, or is not what the parent has.
    """
    if opening.kind is not Kind.OPEN:
        raise PayloadError(f"a frame of kind {opening.kind.name} came, expected an identity")
    expected = read(Identity, opening.data)
    loaded = load(options.experiment)
    machine = Machine(options.group_size, torch.get_num_threads(), options.device)
    ready = Event()

    def note(text: str) -> None:
        if ready.is_set():  # What loading says, the parent has said already.
            send(Frame(Kind.NOTE, 0, text.encode()))

    setup = prepare(loaded, note=note, machine=machine)
    found = identity(setup, dump(loaded.experiment))
    why = expected.differs(found)
    if why is not None:
        raise RunError(why)
    keep_noise(options.state, setup.protection, setup.rows)
    send(Frame(Kind.READY, 0, found.model_dump_json().encode()))
    ready.set()
    return setup


if __name__ == "__main__":
    main(sys.argv[1:])
