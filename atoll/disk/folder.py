"""A folder that appears whole and checked, or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atoll.disk.files import PARTIAL, explained, sync_folder, umask
from atoll.errors import RunError

__all__ = ["MARK", "free_place", "new_folder"]

MARK = "atoll.json"
"""The file by which an export knows an earlier one."""

_AT_FDCWD, _EXCHANGE = -100, 2  # of <fcntl.h> and renameat2(2)


def free_place(path: Path, *, force: bool) -> Path:
    """Where a folder may appear, with links followed.

    force: an earlier export may stand there.

    Raises:
        RunError: when something else does.
    """
    try:
        place = path.expanduser().resolve()
        taken = place.exists() and (not place.is_dir() or any(place.iterdir()))
    except (OSError, RuntimeError) as error:  # A loop of links, a folder that may not be read.
        raise RunError(f"{path} cannot be looked at: {error}; name another place") from error
    if not taken:
        return place
    if not place.is_dir():
        raise RunError(f"{path} is a file; name a folder that is not there yet")
    if not (place / MARK).is_file():
        raise RunError(
            f"{path} holds files that are not of an export; name a folder that is not there yet"
        )
    if not force:
        raise RunError(f"{path} holds an earlier export; name another place, or add --force")
    return place


@contextmanager
def new_folder(place: Path, *, private: bool = False) -> Iterator[Path]:
    """A hidden folder beside `place` to fill; it takes that place when nothing went wrong.

    What stands at `place` is there until then, and is replaced in one step.

    private: nobody but its owner may look into it, at any moment.

    Raises:
        RunError: a full disk, a read-only place, a missing permission.
    """
    with explained(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(PARTIAL, f".{place.name}.", place.parent))
        try:
            yield partial
            _settle(partial, 0o077 if private else umask())
            _swap(partial, place)
            sync_folder(place.parent)
        finally:
            # After the swap this is what stood there before.
            shutil.rmtree(partial, ignore_errors=True)


def _settle(folder: Path, mask: int) -> None:
    """As readable as it shall be, and on the disk."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())


def _swap(partial: Path, place: Path) -> None:
    """Put a folder in its place; what was there stands where the folder stood."""
    if not place.exists() or not any(place.iterdir()):
        os.replace(partial, place)
        return
    if _exchanged(partial, place):
        return
    # Two steps, where the system has no exchange: the place is empty for an instant.
    old = partial.with_name(f"{partial.name}.old")
    os.replace(place, old)
    try:
        os.replace(partial, place)
    except OSError:
        os.replace(old, place)
        raise
    os.replace(old, partial)


def _exchanged(one: Path, other: Path) -> bool:
    """Linux swaps two names in one step, on most file systems."""
    if sys.platform != "linux":
        return False
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # A C library older than the call.
        return False
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number))
