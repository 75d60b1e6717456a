"""What is wrong with a line, as far as its neighbours tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from atoll.egress.lines import Line, Link, line_of
from atoll.egress.seal import parsed, signed_by
from atoll.errors import EgressError

__all__ = ["Page", "fault", "misplaced", "replaced"]

ADVICE = "find out who could write into that folder"


@dataclass(frozen=True)
class Page:
    """A file's whole lines, each with its line break, and the piece of a line after them."""

    file: Path
    lines: Sequence[bytes]
    rest: bytes


def fault(place: Page | Path, what: str, line: int | None = None) -> EgressError:
    """What to raise; `line` counts from 0."""
    file = place.file if isinstance(place, Page) else place
    where = "" if line is None else f", line {line + 1}"
    before = "all before it is as the site wrote it; " if line else ""
    return EgressError(f"{file}{where}: {what}; {before}{ADVICE}")


def replaced(page: Page, place: int, after: Link | None, key: EllipticCurvePublicKey) -> str:
    """Why a line may be none of the site's: the one that belongs there comes later, or does not."""
    if after is not None and _comes(page.lines[place + 1 :], after.number + 1, key):
        return "it has been inserted: the site did not sign it"
    return "it has been edited after it was signed, or another key has signed it"


def misplaced(
    page: Page, place: int, after: Link, key: EllipticCurvePublicKey, line: Line
) -> str | None:
    """Why a line that the site signed does not belong where it stands; None where it does."""
    due = after.number + 1
    if line.number < due:
        return f"it has been inserted: number {line.number} has its place before"
    if line.number > due:
        if _comes(page.lines[place + 1 :], due, key):
            return f"lines have been reordered: number {line.number} stands before number {due}"
        gone = f"number {due} is" if line.number == due + 1 else f"{due} to {line.number - 1} are"
        return f"lines have been removed before it: {gone} missing"
    if line.previous != after.hash:
        return "it does not follow the line before it: that one is not what the site wrote there"
    return None


def _comes(lines: Sequence[bytes], number: int, key: EllipticCurvePublicKey) -> bool:
    """Whether a line of that number, signed by that key, is among them."""
    for raw in lines:
        try:
            value = parsed(raw)
            if line_of(value).number == number and signed_by(value, key):
                return True
        except ValueError:
            continue
    return False
