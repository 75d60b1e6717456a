"""One process at a time in a directory."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atoll.errors import RunError

__all__ = ["alone", "held"]


@contextmanager
def alone(path: Path, refusal: str | None = None) -> Iterator[None]:
    """Hold a directory; the system lets go of it when this process ends, however it ends.

    refusal: what to say when another process holds it; of a run, where nothing is given.

    Raises:
        RunError: when another process holds it.
    """
    if sys.platform == "win32":  # It has no such locks on directories.
        yield
        return
    import fcntl

    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # A file system without locks is no reason not to run.
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise RunError(
                    refusal
                    or f"another `atoll run` is writing into {path}; wait for its end, or set "
                    "output_dir to another directory"
                ) from None
        yield
    finally:
        os.close(descriptor)


def held(path: Path) -> bool:
    """Whether another process, or another part of this one, holds a directory."""
    if sys.platform == "win32":
        return True
    try:
        with alone(path, "held"):
            return False
    except RunError:
        return True
    except OSError:  # It is gone, or not for us to open.
        return False
