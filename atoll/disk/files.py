"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atoll.errors import AtollError, RunError

__all__ = [
    "PARTIAL",
    "append_bytes",
    "append_line",
    "explained",
    "json_text",
    "make_folder",
    "sweep",
    "sync_folder",
    "umask",
    "unfinished",
    "write_bytes",
    "write_json",
    "write_text",
    "write_whole",
]

PARTIAL = ".partial"
_DEVICES = (Path("/dev"), Path("/dev/fd"))
_WHY = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "your disk quota is used up; free some space and run it again",
    errno.EFBIG: "it is larger than a file may be here; raise the limit (ulimit -f), or write to "
    "another place",
    errno.EROFS: "the file system is read-only; name another place",
    errno.EACCES: "you may not write there; name another place",
    errno.EPERM: "you may not write there; name another place",
    errno.ENOTDIR: "a part of this path is a file; name a place below folders only",
    errno.EEXIST: "a part of this path is a file; name a place below folders only",
    errno.EISDIR: "it is a folder; name a file",
    errno.ENAMETOOLONG: "the name is too long; give a shorter one",
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's refusals into sentences.

    Raises:
        RunError: a full disk, a read-only place, a missing permission, a file in the way.
    """
    try:
        yield
    except AtollError:
        raise
    except Exception as error:
        # Libraries written in Rust give the system's refusals in words only.
        rust = re.search(r"\(os error (\d+)\)", str(error))
        if not isinstance(error, OSError) and rust is None:
            raise
        number = error.errno if isinstance(error, OSError) else int(rust[1]) if rust else 0
        why = _WHY.get(number or 0, os.strerror(number) if number else str(error))
        raise RunError(f"{path} cannot be written: {why}") from error


def make_folder(path: Path) -> None:
    """Make a folder, and those around it, where they are missing."""
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)


def write_whole(path: Path, write: Callable[[Path], None], *, mode: int = 0o666) -> None:
    """Let `write` fill a file beside `path`, then put it in place in one step.

    mode: who may read and write it, as far as the user's mask allows.

    A link is followed. What is no file, a pipe or a device, is written to and never replaced.
    """
    with explained(path):
        if path.exists() and (not path.is_file() or path.parent in _DEVICES):
            write(path)
            return
        path = path.resolve() if path.is_symlink() else path
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(PARTIAL, f".{path.name}.", path.parent)
        os.close(handle)
        partial = Path(name)
        try:
            write(partial)
            with partial.open("rb") as stream:
                os.fsync(stream.fileno())
            # A temporary file is its owner's alone; a result is as readable as any new file.
            partial.chmod(mode & ~umask())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def unfinished(path: Path) -> bool:
    """Whether a file or folder is one that was being written, as a killed process leaves it."""
    return path.name.startswith(".") and path.suffix == PARTIAL


def sweep(folder: Path) -> None:
    """Take away what killed processes left unfinished; nobody else may be writing there."""
    for path in folder.glob(f".*{PARTIAL}"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """A new name in a folder is on the disk when the folder is."""
    if os.name == "posix":
        with explained(folder):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def umask() -> int:
    """What new files may not be, as the user set it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_bytes(path: Path, content: bytes | memoryview, *, mode: int = 0o666) -> None:
    """Write a file whole; see `write_whole`."""

    def write(partial: Path) -> None:
        partial.write_bytes(content)

    write_whole(path, write, mode=mode)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file whole."""
    write_text(path, json_text(value, indent=2) + "\n")


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON; numbers that it has no word for become null."""
    return json.dumps(_plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Add one JSON line; see `append_bytes`."""
    append_bytes(path, (json_text(value) + "\n").encode())


def append_bytes(path: Path, line: bytes) -> None:
    """Add a line that is on the disk afterwards; on a full disk the file keeps whole lines only."""
    with explained(path):
        size = path.stat().st_size if path.exists() else 0
        try:
            with path.open("ab") as stream:
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError:
            if path.exists():
                os.truncate(path, size)
            raise


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
