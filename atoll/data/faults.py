"""All that is wrong with data files, line by line; reading them for a run stops at the first."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from atoll.data.layout import client_folders, split_file, split_files
from atoll.data.rows import RowKind, canonical
from atoll.data.tables import Row, Table, _decode, _parse, read_table, suffix_of
from atoll.errors import DataError

__all__ = ["Fault", "faults"]

SPLITS = ("train", "test", "val")
NAMED = 5
"""Places that are named of one fault that many rows have."""


@dataclass(frozen=True)
class Fault:
    """What is wrong, without its place, and the places where it stands in one file."""

    file: str
    places: tuple[str, ...]
    sentence: str

    def told(self) -> str:
        """The fault as one line."""
        if not self.places:
            return self.sentence
        first, *others = self.places
        if not others:
            return f"{first}: {self.sentence}"
        named = [place.removeprefix(self.file).lstrip(":, ") for place in others[:NAMED]]
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        return f"{first} (also {', '.join(named)}{more}): {self.sentence}"

    def says(self, error: DataError) -> bool:
        """Whether an error of reading for a run is this one."""
        text = str(error)
        return text == self.sentence or text in {f"{one}: {self.sentence}" for one in self.places}


def faults(path: str | Path, *, columns: Mapping[str, str]) -> list[Fault]:
    """Every fault of the files below `path`, in the order of files and lines.

    None for what is no file here, or reads well.
    """
    grouped: dict[tuple[str, str], list[str]] = {}
    for files in _data_sets(Path(path).expanduser()):
        kind: RowKind | None = None
        for file in files:
            found, kind = _of_file(file, columns, kind)
            for place, sentence in found:
                grouped.setdefault((str(file), sentence), []).extend([place] if place else [])
    return [Fault(file, tuple(places), text) for (file, text), places in grouped.items()]


def _data_sets(path: Path) -> Iterator[list[Path]]:
    """The files of each client, or of one data set: training rows first, which set the kind."""
    if path.is_file():
        yield [path]
        return
    if not path.is_dir():
        return
    try:
        whole = split_files(path)
        if whole:
            yield list(whole.values())
            return
        yield [file for split in SPLITS[1:] if (file := split_file(path, split))]
        for folder in client_folders(path).values():
            yield [file for split in SPLITS if (file := split_file(folder, split))]
    except DataError:
        return


def _of_file(
    path: Path, columns: Mapping[str, str], kind: RowKind | None
) -> tuple[list[tuple[str, str]], RowKind | None]:
    if suffix_of(path) is None:
        return [], kind
    found: list[tuple[str, str]] = []
    try:
        for place, row, fault in _rows(path):
            if fault is None and row is not None:
                alone = Table("row", [row], folder=path.parent, typed=suffix_of(path) != ".csv")
                try:
                    _, kind = canonical(alone, columns=columns, expected=kind)
                except DataError as error:
                    fault = str(error).removeprefix(f"{alone.where(0)}: ")
            if fault is not None:
                found.append((place, fault))
    except DataError as error:
        found.append(("", str(error)))
    return found, kind


def _rows(path: Path) -> Iterator[tuple[str, Row | None, str | None]]:
    """(place, row, None), or (place, None, what is wrong with the line)."""
    if suffix_of(path) not in (".jsonl", ".jsonl.gz"):
        table = read_table(path)
        yield from ((table.where(i), row, None) for i, row in enumerate(table.rows))
        return
    packed = path.name.lower().endswith(".gz")
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                yield from _line(path, number, line)
    except (OSError, EOFError, zlib.error):
        read_table(path)  # which says why it cannot be read to its end


def _line(path: Path, number: int, line: bytes) -> Iterator[tuple[str, Row | None, str | None]]:
    place = f"{path}:{number}"
    try:
        text = _decode(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, path, number)
        if text.strip():
            yield place, _parse(text, place), None
    except DataError as error:
        yield place, None, str(error).removeprefix(f"{place}: ")
