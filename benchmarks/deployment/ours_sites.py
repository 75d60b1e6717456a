"""Synthetic senders: many sites of ours in one process, each with a SuperNode of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from threading import Thread

import torch

from atoll.core import Failure, Payload, Reply, Task
from atoll.flower.site import Connection, Site
from atoll.frames import Frame, Kind
from atoll.runtimes.flower_client import Guard, answer_ask
from atoll.runtimes.held import Held
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.mailbox import OPENING, Mailbox
from atoll.runtimes.store import memory_store
from benchmarks.deployment.toy import program


def main(port: int, folder: Path, names: Sequence[str]) -> None:
    """Answer until killed."""
    torch.set_num_threads(1)
    threads = [Thread(target=_site, args=(port, folder, name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _site(port: int, folder: Path, name: str) -> None:
    certs, state = folder / name, folder / name / "state"
    state.mkdir()
    runtime = InProcess((name,), program().algorithms, memory_store())
    mailbox = Mailbox(state, name, lambda run: True)
    engine = Site(
        Connection(f"localhost:{port}", certs / "ca.pem", certs / "client.key"), state, mailbox.take
    )
    engine.keep_up(lambda text: None)
    guard = Guard(_begin, _release, lambda failure: failure, _leaving, lambda data: None)
    held = Held(runtime.algorithms)
    for letter in mailbox.letters():
        if letter.name.startswith(OPENING):
            mailbox.answer(letter, lambda send: send(Frame(Kind.READY, 0, b"{}")))
        else:
            mailbox.answer(letter, partial(answer_ask, runtime, guard, held, letter.data))


def _begin(tasks: Sequence[Task]) -> None:
    """Always."""


def _release(payload: Payload) -> Payload:
    return payload


def _leaving(task: Task, record: Reply | Failure, data: bytes) -> None:
    """Whatever it is."""


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
