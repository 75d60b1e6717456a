"""One worker: a process of its own, the pipes to it, and how it ended."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from atoll.errors import PayloadError, RunError
from atoll.frames import Frame, Kind, read_frame, write_frame
from atoll.runtimes.messages import Identity, error_of, read
from atoll.runtimes.silence import Silence

__all__ = ["Hire", "Worker"]

TAIL = 4096
"""Bytes at the end of a log in which the last words stand."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Hire:
    """How workers are started, what they must agree on, and the folder of their logs."""

    command: tuple[str, ...]
    identity: Identity
    logs: Path


class Worker:
    """A process that answers asks; `held`: the requests that it has.   note: hears of long silence.

    It does not outlive this process, however that ends: it goes when its pipe closes.
    """

    def __init__(self, hire: Hire, number: int, note: Callable[[str], None]) -> None:
        self.name = f"worker {number}"
        self.held: set[int] = set()
        self._hire = hire
        self._log = hire.logs / f"{number}.log"
        try:
            self._process = self._started(hire.command)
        except OSError as error:  # a full disk, no memory for another process
            raise RunError(f"{self.name} cannot be started: {error}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        os.set_blocking(self._stdin.fileno(), False)
        self.silence = Silence(self._process.pid, name=self.name, note=note)
        self.send([Frame(Kind.OPEN, 0, hire.identity.model_dump_json().encode())])

    def _started(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                env={**os.environ, **ONE_THREAD},
                # Ctrl-C at the terminal is for this process, which then ends its workers.
                process_group=0,
            )

    def fileno(self) -> int:
        """What to wait for."""
        return self._stdout.fileno()

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def ready(self) -> None:
        """Wait until it has loaded everything.

        Raises:
            RunError: when it ended meanwhile, or is not of this run.
        """
        frame = self.receive()
        if frame is None:
            raise RunError(f"{self.name} {self.ending()} before it was ready")
        if frame.kind is Kind.BROKEN:
            raise error_of(frame.data, worker=self.name)
        if frame.kind is not Kind.READY:
            raise PayloadError(f"{self.name} did not say that it is ready")
        why = self._hire.identity.differs(read(Identity, frame.data))
        if why is not None:
            raise RunError(f"{self.name}: {why}")

    def send(self, frames: Iterable[Frame]) -> None:
        """Write frames; that nobody reads them is found out by `receive`."""
        descriptor, wait = self._stdin.fileno(), self.silence.wait
        with suppress(BrokenPipeError):
            for frame in frames:
                write_frame(descriptor, frame, wait=partial(wait, descriptor, select.POLLOUT))

    def receive(self) -> Frame | None:
        """The next frame, or None at its end."""
        descriptor, wait = self._stdout.fileno(), self.silence.wait
        return read_frame(descriptor, wait=partial(wait, descriptor, select.POLLIN))

    def ending(self) -> str:
        """How a worker ended that sends no more: `was killed by SIGKILL`."""
        self.close()
        status = self._process.returncode
        if status == -signal.SIGKILL:
            return "was killed by SIGKILL"  # which leaves it no time to say anything
        if status < 0:
            return f"was killed by {signal.Signals(-status).name} (see {self._log})"
        with self._log.open("rb") as log:
            log.seek(-min(TAIL, self._log.stat().st_size), os.SEEK_END)
            lines = log.read().decode(errors="replace").strip().splitlines()
        # Python ends so after an exception, whose last line tells what it was.
        told = status == 1 and lines
        return f"ended with status {status} ({lines[-1] if told else f'see {self._log}'})"

    def close(self) -> None:
        """End it at once, with all that it started; what it writes is whole or not there."""
        if self._stdout.closed:
            return
        # One that is on its way out keeps its status; what it forked may have outlived it.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._stdin.close()
        self._stdout.close()
