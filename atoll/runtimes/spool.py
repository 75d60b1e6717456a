"""Answers on the server's disk: read, judged, and, once a set of them is closed, written down."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from atoll.core import Context, Failure, Reply
from atoll.core.facts import TOLD
from atoll.core.wire import Record, open_record, unpack
from atoll.disk.files import write_json
from atoll.errors import PayloadError
from atoll.frames import HEAD, Frame, Kind
from atoll.runtimes.letters import frames_in
from atoll.runtimes.messages import Broken, read
from atoll.words import printable

__all__ = [
    "BACK",
    "Gathered",
    "Why",
    "answers_in",
    "failure_in",
    "frames_of",
    "journal",
    "journalled",
    "letter_name",
    "records_of",
    "sweep",
]

KINDS = (Kind.RECORD, Kind.DONE, Kind.BROKEN, Kind.READY)
BACK = 2
"""Rounds whose answers are kept: a run may go back to the checkpoint before the last."""
SHORT = 2**16
"""Bytes of an answer at most that may tell of a failure."""
Why = tuple[str, str]
"""Kind and message."""


@dataclass
class Gathered:
    """Who answered, and where the answer is kept; who did not, and why: (kind, message).

    attempts: which of its letters each client was sent last.
    """

    answers: dict[str, Path] = field(default_factory=dict)
    failures: dict[str, Why] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)


def frames_of(path: Path) -> Iterator[Frame]:
    """The frames of an answer in the spool.

    Raises:
        PayloadError: something else.
    """
    return frames_in(path.read_bytes(), kinds=KINDS)


def records_of(path: Path, number: int, limit: int) -> Iterator[Record]:
    """The records of an answer, one at a time; their tensors stay on disk until they are used.

    Raises:
        PayloadError: other frames than `number` records and an end, or records that are not whole.
    """
    size = path.stat().st_size
    with path.open("rb") as opened:
        for _ in range(number):
            length, start = _length(opened, Kind.RECORD, limit), opened.tell()
            if start + length > size:
                raise PayloadError("an answer came that is cut off")
            yield open_record(path, start, length, limit=limit)
            opened.seek(start + length)
        _length(opened, Kind.DONE, 0)


def _length(opened: BinaryIO, kind: Kind, limit: int) -> int:
    """Bytes of the next frame, which has to be of a kind."""
    head = opened.read(HEAD.size)
    letter, _, length = HEAD.unpack(head) if len(head) == HEAD.size else (b"", 0, 0)
    if letter != kind.value or length > limit:
        raise PayloadError(f"an answer came that holds no {kind.name.lower()} where one belongs")
    return int(length)


def failure_in(client: str, path: Path) -> Why | None:
    """Why an answer is none, where it tells so, or cannot be read."""
    try:
        with path.open("rb") as opened:
            short = path.stat().st_size <= SHORT
            frames = list(frames_in(opened.read(), kinds=KINDS)) if short else []
        for frame in frames:
            if frame.kind is Kind.BROKEN:
                broken = read(Broken, frame.data)
                return printable(broken.error)[:64], printable(broken.message[:TOLD])
            if frame.kind is Kind.RECORD:
                record = unpack(frame.data)
                if isinstance(record, Failure):
                    return record.kind, record.message
    except PayloadError as error:
        return "payload", str(error)
    return None


def journal(folder: Path, found: Gathered) -> None:
    """Write down whose answers count, before any of them is folded."""
    write_json(folder / "closed.json", {"answers": sorted(found.answers)})


def journalled(folder: Path) -> tuple[str, ...] | None:
    """Whose answers counted, where that was written down."""
    path = folder / "closed.json"
    if not path.is_file():
        return None
    try:
        return tuple(json.loads(path.read_text())["answers"])
    except (ValueError, KeyError, TypeError):
        return None


def answers_in(path: Path, client: str, number: int, limit: int) -> Iterator[Reply | Failure]:
    """The replies of one client, in the tasks' order."""
    came = 0
    try:
        for record in records_of(path, number, limit):
            if not isinstance(record, Reply | Failure) or record.client != client:
                raise PayloadError("a record came that was not asked for")
            came += 1
            yield record
    except PayloadError as error:
        yield from (Failure(client, "payload", str(error)) for _ in range(number - came))


def sweep(spool: Path, round: int) -> None:
    """Forget the answers of rounds that no run comes back to."""
    for folder in spool.glob("r*-e*"):
        number = folder.name[1:].partition("-")[0]
        if number.removeprefix("-").isdigit() and int(number) < round - BACK:
            shutil.rmtree(folder, ignore_errors=True)


def letter_name(context: Context) -> str:
    """Of the letters of a question."""
    again = f"-a{context.attempt}" if context.attempt else ""
    return f"r{context.round}-e{context.exchange}{again}"
