"""Asking a process to end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from atoll.errors import RunError
from atoll.status.standing import Standing

__all__ = ["stop"]

TELL = 10.0
"""Seconds after which it is said that the process is still there."""


def stop(standing: Standing, *, note: Callable[[str], None]) -> bool:
    """Ask a process to end as Ctrl-C does, and wait until it has; False where it had before.

    Raises:
        RunError: when it is another user's.
    """
    if not standing.alive:
        return False
    try:
        os.kill(standing.pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    except PermissionError:
        raise RunError(
            f"process {standing.pid} of {standing.path} is another user's; stop it as that user"
        ) from None
    told = time.monotonic()
    while standing.alive:
        time.sleep(0.1)
        if time.monotonic() - told > TELL:
            told = time.monotonic()
            note(f"process {standing.pid} is still finishing what it is at")
    return True
