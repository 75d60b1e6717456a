"""The files of a record.

egress-0001.jsonl, …   lines; numbers and hashes go on from one file to the next
egress.head            the last number and its hash, signed: nothing can be taken off the end
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from atoll.egress.lines import Head, head_of
from atoll.egress.seal import parsed
from atoll.errors import EgressError

__all__ = ["HEAD", "file_at", "files_in", "number_of", "read_head"]

HEAD = "egress.head"
_FILE = re.compile(r"egress-(\d{4,})\.jsonl")


def read_head(folder: Path) -> tuple[Head, dict[str, Any]] | None:
    """The head, and what its signature covers; None where there is none.

    Raises:
        EgressError: for one that Atoll did not write.
    """
    path = folder / HEAD
    if not path.is_file():
        return None
    try:
        value = parsed(path.read_bytes())
        return head_of(value), value
    except ValueError:
        raise EgressError(
            f"{path} has been edited: it is not what Atoll writes; look at who could write there"
        ) from None


def file_at(folder: Path, number: int) -> Path:
    """The file of a number."""
    return folder / f"egress-{number:04}.jsonl"


def number_of(path: Path) -> int | None:
    """The number of a file; None where it is no file of a record."""
    found = _FILE.fullmatch(path.name)
    return int(found[1]) if found else None


def files_in(folder: Path) -> list[Path]:
    """The files of a record, in order."""
    return sorted(
        (path for path in folder.iterdir() if number_of(path)), key=lambda p: number_of(p) or 0
    )
