"""Reading a record from its first line to its last, which its head tells."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from atoll.egress.faults import Page, fault
from atoll.egress.lines import START, Head, Line, Link
from atoll.egress.pages import Keys, Step, first_of, page_of, steps
from atoll.egress.places import HEAD, file_at, files_in, number_of, read_head
from atoll.egress.seal import public_key, signed_by
from atoll.errors import EgressError, RunError

__all__ = ["Unfinished", "read"]

Told = tuple[Head, dict[str, Any]]


@dataclass(frozen=True)
class Unfinished:
    """The piece of a line that was being written when its process ended: it never left."""

    bytes: int


def read(path: Path, certificates: Collection[x509.Certificate]) -> Iterator[Line | Unfinished]:
    """The lines of a folder, or of one file in it, from the first on.

    certificates: of whom the lines must be; where none is given, the record's own are believed.
    A record may be read while its site writes it.

    Raises:
        EgressError: at the first line that is wrong, or when lines are missing at the end.
        RunError: when there is no record, or it cannot be read.
    """
    folder, files = _files(path)
    trusted = [public_key(one) for one in certificates]
    onward = _onward(folder, files) if path.is_file() else None
    told = None if onward else _told(folder)
    start = None if files and number_of(files[0]) != 1 else START
    page, seen = Page(folder, (), b""), {START}
    last: Step | None = None
    for file in files:
        if page.rest:
            raise _removed(page.file, "it stops in the middle of one")
        page = page_of(file)
        for step in steps(page, last.link if last else start, trusted):
            last = step
            if told is not None:
                seen |= {one for one in (step.before, step.link) if one.number == told[0].number}
            yield step.line
    if onward is not None:
        _goes_on(page, last, onward, trusted)
    elif told is not None:
        _ends(folder, told, last, seen, trusted)
        _ends_now(folder, last, page.rest)
    if page.rest:
        yield Unfinished(len(page.rest))


def _files(path: Path) -> tuple[Path, list[Path]]:
    """The folder of a record, and what is to be read of it."""
    if path.is_file():
        if number_of(path) is None:
            raise RunError(f"{path} is no file of a record: those are called {file_at(Path(), 1)}")
        return path.parent, [path]
    if not path.is_dir():
        raise RunError(f"there is no record {path}; name the folder that a client writes")
    files = files_in(path)
    if not files and not (path / HEAD).is_file():
        raise RunError(f"{path} holds no record: neither {file_at(Path(), 1)} nor {HEAD}")
    for number, file in enumerate(files, 1):
        if number_of(file) != number:
            raise fault(file_at(path, number), f"it has been removed: {file.name} goes on from it")
    return path, files


def _onward(folder: Path, files: list[Path]) -> Page | None:
    """The file after the last one that is read, where it has begun."""
    after = file_at(folder, (number_of(files[-1]) or 0) + 1)
    page = page_of(after) if after.is_file() else None
    return page if page is not None and page.lines else None


def _told(folder: Path) -> Told:
    found = read_head(folder)
    if found is None:
        raise EgressError(
            f"{folder / HEAD} is missing, without which nobody knows the last line; look for it "
            "where this record was copied from"
        )
    return found


def _goes_on(page: Page, last: Step | None, onward: Page, trusted: Keys) -> None:
    """Whether the first line of the next file goes on from the last line of this one."""
    first, _ = first_of(onward, trusted)
    link = None if last is None else last.link
    if page.rest or link != Link(first.number - 1, first.previous):
        raise _removed(page.file, f"{onward.file.name} goes on from number {first.number - 1}")


def _ends(
    folder: Path, told: Told, last: Step | None, seen: Collection[Link], trusted: Keys
) -> None:
    """Whether the record holds what the head told before it was read."""
    head, value = told
    file = file_at(folder, head.file)
    if head.number >= 0:
        page = page_of(file) if file.is_file() else Page(file, (), b"")
        if not page.lines:
            raise _removed(file, f"{HEAD} knows of number {head.number} in it")
        keys: Keys = [first_of(page, trusted)[1]]
    else:
        keys = trusted
    if keys and not any(signed_by(value, key) for key in keys):
        raise fault(folder / HEAD, "it has been edited, or another key has signed it")
    if last is not None and head.number > last.link.number:
        raise _removed(file, f"{HEAD} knows of number {head.number}")
    same = [link for link in seen if link.number == head.number]
    if same and same[0].hash != head.hash:
        raise fault(file, f"number {head.number} is not the line that {HEAD} knows")


def _ends_now(folder: Path, last: Step | None, rest: bytes) -> None:
    """Whether no more than one line follows what the head tells, which may have moved on."""
    (head, _), number = _told(folder), -1 if last is None else last.link.number
    if number > head.number + (0 if rest else 1):
        what = f"lines were added after number {head.number}, the last that {HEAD} knows"
        raise fault(folder, f"{what}, or an older {HEAD} was put back")


def _removed(file: Path, who: str) -> EgressError:
    return fault(file, f"lines have been removed at its end: {who}")
