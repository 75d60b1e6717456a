"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atoll.errors import RunError

__all__ = ["append_line", "explained", "write_json", "write_text", "write_whole"]


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's refusals into sentences.

    Raises:
        RunError: a full disk, a read-only place, a missing permission.
    """
    try:
        yield
    except OSError as error:
        why = {
            errno.ENOSPC: "the disk is full; free some space and run the same command again",
            errno.EDQUOT: "your disk quota is used up; free some space and run it again",
            errno.EROFS: "the file system is read-only; set output_dir to another place",
            errno.EACCES: "you may not write there; set output_dir to another place",
        }.get(error.errno or 0, str(error))
        raise RunError(f"{path} cannot be written: {why}") from error


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a file beside `path`, then put it in place in one step."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        partial = Path(name)
        try:
            write(partial)
            with partial.open("rb") as stream:
                os.fsync(stream.fileno())
            partial.chmod(0o644)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    write_whole(path, lambda partial: _write(partial, text))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file whole; numbers that JSON has no word for become null."""
    write_text(path, json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n")


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Add one JSON line; on a full disk the file keeps its whole lines only."""
    line = (json.dumps(_plain(value), ensure_ascii=False) + "\n").encode()
    with explained(path):
        size = path.stat().st_size if path.exists() else 0
        try:
            with path.open("ab") as stream:
                stream.write(line)
                stream.flush()
        except OSError:
            if path.exists():
                os.truncate(path, size)
            raise


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
