"""A ledger as it stands on the disk, held against its own chain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from atoll.accounting import Event, Spent, altogether
from atoll.errors import PrivacyError
from atoll.ledger.lines import FILE, HEAD, START, Begin, Entry, Head, Released, hash_of, line_of

__all__ = ["Told", "read", "verified"]


@dataclass(frozen=True)
class Told:
    """What a ledger says.

    size: bytes that count; what a killed process left behind them was never released.
    """

    begin: Begin
    lines: tuple[Released, ...]
    last: str
    size: int

    @property
    def once(self) -> tuple[Entry, ...]:
        """Each release once: what was begun again after a crash is the same one, as is what turned
        out to be less than was feared before it."""
        found: dict[tuple[str, int, str], Entry] = {}
        for entry in (line.entry for line in self.lines):
            if entry.release is not None:
                found[entry.run, entry.exchange, entry.noise] = entry
        return tuple(found.values())

    @property
    def releases(self) -> tuple[tuple[str, Event], ...]:
        """Each release once, behind its run."""
        return tuple((one.run, one.release) for one in self.once if one.release is not None)

    def has(self, entry: Entry) -> bool:
        """Whether a release is written down, under another number of its round as well."""
        same = (entry.run, entry.exchange, entry.noise)
        return any((e.run, e.exchange, e.noise) == same for e in (one.entry for one in self.lines))

    def spent(self, delta: float, *runs: str) -> Spent:
        """What all releases come to, or those of some runs."""
        return altogether([one for own, one in self.releases if not runs or own in runs], delta)


def read(folder: Path) -> Told | None:
    """The ledger in a folder; None where there is none yet.

    Raises:
        PrivacyError: with the line at which it is no longer what was written.
    """
    path, head = folder / FILE, _head(folder)
    if head is None:
        # A kill may come between the first line and the head that counts it.
        if path.exists() and path.read_bytes().count(b"\n") > 1:
            raise PrivacyError(f"{folder / HEAD} is missing, and {path} has lines; {_CARE}")
        return None
    content = path.read_bytes() if path.exists() else b""
    previous, lines, size = START, list[Begin | Released](), 0
    for number, line in enumerate(content.splitlines(keepends=True)):
        if size >= head.size and not line.endswith(b"\n"):
            break  # Begun and never whole: nothing was released after it.
        try:
            found = line_of(line, number)
        except ValueError as error:
            raise PrivacyError(
                f"{path} was changed at line {number + 1}: {error}; {_CARE}"
            ) from None
        if found.previous != previous:
            raise PrivacyError(
                f"{path} was changed before line {number + 1}, which goes on from another line; "
                f"{_CARE}"
            )
        previous, size = hash_of(line), size + len(line)
        lines.append(found)
        if number == head.number and (size, previous) != (head.size, head.hash):
            raise PrivacyError(f"{path} was changed at line {number + 1}; {_CARE}")
    if len(lines) <= head.number:
        raise PrivacyError(
            f"{path} ends after line {len(lines)}, and {head.number + 1} were written; {_CARE}"
        )
    (begin, *rest) = lines
    assert isinstance(begin, Begin), "line_of gives the first line its kind"
    return Told(begin, tuple(r for r in rest if isinstance(r, Released)), previous, size)


def verified(folder: Path) -> Told:
    """The ledger in a folder, with every ε counted again.

    Raises:
        PrivacyError: where there is none, or anything in it was changed.
    """
    told = read(folder)
    if told is None:
        raise PrivacyError(f"{folder} holds no ledger; name the folder that has a {FILE}")
    for place, line in enumerate(told.lines):
        upto = Told(told.begin, told.lines[: place + 1], "", 0)
        found = upto.spent(line.delta).epsilon
        if not _same(found, line.epsilon):
            raise PrivacyError(
                f"{folder / FILE}: line {line.number + 1} says epsilon {line.epsilon}, and its "
                f"releases come to {found:.4g}; {_CARE}"
            )
    return told


def _same(found: float, said: float | None) -> bool:
    if said is None or math.isinf(found):
        return said is None and math.isinf(found)
    return math.isclose(found, said, rel_tol=1e-3, abs_tol=1e-3)


def _head(folder: Path) -> Head | None:
    path = folder / HEAD
    if not path.is_file():
        return None
    try:
        return Head.model_validate_json(path.read_bytes())
    except ValidationError:
        raise PrivacyError(f"{path} was changed: it is not what Atoll writes; {_CARE}") from None


_CARE = (
    "what was spent on this data set is no longer known; restore the ledger from a backup, and "
    "look at who could write there"
)
