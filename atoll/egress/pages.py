"""One file of a record, line by line: each line's form, signature, and place in the chain."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from atoll.egress.faults import Page, fault, misplaced, replaced
from atoll.egress.lines import Begin, Line, Link, line_of
from atoll.egress.places import number_of
from atoll.egress.seal import certificate_of, fingerprint, parsed, public_key, sha256, signed_by
from atoll.errors import RunError

__all__ = ["Step", "first_of", "page_of", "steps"]

Keys = Collection[EllipticCurvePublicKey]


@dataclass(frozen=True)
class Step:
    """A line that is right; what it goes on from, and what goes on from it."""

    line: Line
    before: Link
    link: Link


def page_of(file: Path) -> Page:
    """A file of a record.

    Raises:
        RunError: when it cannot be read.
    """
    try:
        *lines, rest = file.read_bytes().split(b"\n")
    except OSError as error:
        raise RunError(f"{file} cannot be read: {error.strerror}") from error
    return Page(file, [line + b"\n" for line in lines], rest)


def first_of(page: Page, trusted: Keys) -> tuple[Begin, EllipticCurvePublicKey]:
    """The first line of a page that has lines, and the key of all its lines.

    trusted: keys of which it must be one; empty where the certificate in the line is believed.

    Raises:
        EgressError: when it is no such line, or another's.
    """
    try:
        value = parsed(page.lines[0])
        line = line_of(value)
        if not isinstance(line, Begin):
            raise fault(page, "the line that a file begins with has been removed or moved", 0)
        certificate = certificate_of(line.certificate.encode())
    except ValueError:
        raise fault(page, "it has been edited: it is not as Atoll writes lines", 0) from None
    key = public_key(certificate)
    if trusted and key not in trusted:
        what = f"it is signed by another key, of the certificate {fingerprint(certificate)}"
        raise fault(page, f"{what} (SHA-256)", 0)
    if not signed_by(value, key) or line.certificate_sha256 != fingerprint(certificate):
        raise fault(page, "it has been edited after it was signed", 0)
    if line.file != number_of(page.file):
        raise fault(page, f"the file has been renamed: it was written as number {line.file}", 0)
    return line, key


def steps(page: Page, after: Link | None, trusted: Keys) -> Iterator[Step]:
    """The lines of a page, as long as they are right.

    after: what the first of them has to go on from; None where that is not known.

    Raises:
        EgressError: at the first line that is wrong.
    """
    if not page.lines:
        return
    first, key = first_of(page, trusted)
    before = after or Link(first.number - 1, first.previous)
    for place, raw in enumerate(page.lines):
        try:
            value = parsed(raw)
            line = line_of(value)
        except ValueError:
            raise fault(page, replaced(page, place, before, key), place) from None
        if not signed_by(value, key) or (isinstance(line, Begin) and place):
            raise fault(page, replaced(page, place, before, key), place)
        if (wrong := misplaced(page, place, before, key, line)) is not None:
            raise fault(page, wrong, place)
        link = Link(line.number, sha256(raw))
        yield Step(line, before, link)
        before = link
