"""What must be settled before torch is imported: threads, warnings, and Ctrl-C meanwhile."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from atoll.models.quiet import hush

__all__ = ["INTERRUPTED", "interruptible", "load_torch", "settle", "stoppable", "threads"]

INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""


def threads(cores: int, load: float) -> int:
    """How many threads torch should use.

    One where others need the cores too: threads that wait for a thread that was pushed off its
    core lose more than they gain (two threads on a busy machine are slower than one). Two on an
    idle machine, however many cores it has: the matrices of an adapter are too small for more.
    """
    busy = load > cores / 2
    return 1 if busy or cores == 1 else min(cores, 2)


def settle() -> None:
    """Set this process up; what the user set in the environment stands."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    load = os.getloadavg()[0] if sys.platform != "win32" else 0.0
    given = {
        "OMP_NUM_THREADS": str(threads(cores, load)),
        # A waiting thread that spins takes a core from whoever shares the machine.
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        # Libraries report errors; their advice is about code that the user did not write.
        "TRANSFORMERS_VERBOSITY": "error",
        "DATASETS_VERBOSITY": "error",
        "HF_HUB_VERBOSITY": "error",
    }
    for name, value in given.items():
        os.environ.setdefault(name, value)
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    hush()


def load_torch() -> None:
    """Import torch and all that stands on it.

    Torch runs C++ while it loads, which an exception from a signal would abort with a core dump.
    """
    with interruptible():
        import atoll.runs.run  # noqa: F401


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C ends the process at once, where an exception would not be caught."""
    before = signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM, of `atoll stop` and of a machine that shuts down, ends this as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"Error: interrupted\n")
    os._exit(INTERRUPTED)
