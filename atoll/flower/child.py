"""A process of the engine, as who starts it sees it: its frames, its lines, its log, its end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread
from time import monotonic, time

from atoll.errors import PayloadError, RunError
from atoll.flower.engine import PART, command
from atoll.frames import Frame, read_frame, write_frame

__all__ = ["Child", "Watch"]

DULL = ("INFO", "For more information")
"""How lines begin that tell nothing of an end."""
TAIL = 2000
"""Bytes at the end of a log in which the last words stand."""
PAINT = re.compile(r"\x1b\[[0-9;]*m")
"""Colours, which Flower gives its lines."""
LASTS = 30.0
"""Seconds that processes have to last, or they are started again more and more slowly."""
LONGEST = 10.0
"""Seconds between two starts at most."""


class Child:
    """A process that ends when its standard input does, as when this process is killed.

    heard: is called, in a thread of its own, with each frame that comes; `told`, with each line.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Path,
        heard: Callable[[Frame], None] | None = None,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self.name = module.rpartition(".")[2]
        self._log, self._heard, self._told = log, heard, told
        self._writing = Lock()
        try:
            with log.open("ab") as opened:
                self._process = subprocess.Popen(
                    command(module, list(arguments)),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=opened,
                    bufsize=0,
                    env=dict(env),
                    process_group=0,
                )
        except OSError as error:
            raise RunError(f"{self.name} of Flower cannot be started: {error}") from error
        Thread(target=self._listen, daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def send(self, frame: Frame) -> None:
        """Write a frame; that nobody reads it shows in `ended`."""
        assert self._process.stdin is not None
        with self._writing, suppress(BrokenPipeError, ValueError):
            write_frame(self._process.stdin.fileno(), frame, limit=2 * PART)

    def close(self) -> None:
        """End it, with all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def last_lines(self) -> list[str]:
        """The end of its log."""
        with self._log.open("rb") as log:
            log.seek(-min(TAIL, self._log.stat().st_size), os.SEEK_END)
            found = PAINT.sub("", log.read().decode(errors="replace"))
        return [line for line in found.splitlines() if line.strip()]

    def quiet(self) -> float:
        """Seconds since it last wrote a line there."""
        return time() - self._log.stat().st_mtime

    def last_words(self) -> str:
        """The last line of its log that is no matter of course."""
        lines = [line for line in self.last_lines() if not line.startswith(DULL)]
        return lines[-1] if lines else f"see {self._log}"

    def _listen(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        with stdout:
            if self._told is not None:
                for line in stdout:
                    self._told(line.decode(errors="replace").rstrip())
            elif self._heard is not None:
                with suppress(PayloadError):
                    while (frame := read_frame(stdout.fileno(), limit=2 * PART)) is not None:
                        self._heard(frame)
                    return
                self.close()


class Watch:
    """When processes that belong together are to be started again."""

    def __init__(self) -> None:
        self._began, self._pause, self._again = monotonic(), 0.5, 0.0

    def gone(self, children: Sequence[Child]) -> str | None:
        """Which of them has ended, once the pause after that is over; all are ended then."""
        ended = next((child for child in children if child.ended), None)
        if ended is None:
            return None
        now = monotonic()
        if not self._again:
            self._pause = 0.5 if now - self._began > LASTS else min(2 * self._pause, LONGEST)
            self._again = now + self._pause
        if now < self._again:
            return None
        for child in children:
            child.close()
        self._began, self._again = now, 0.0
        return f"{ended.name} has ended ({ended.last_words()})"
