"""Where a record ends when it is opened again, and what a kill has left behind that end.

A message leaves after its line and after the head that counts the line. What stands behind the
head has therefore never left: at most one whole line, which stays, or a piece of one, which goes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509

from atoll.egress.lines import START, Begin, Link, line_of
from atoll.egress.places import HEAD, file_at, files_in, number_of, read_head
from atoll.egress.seal import (
    certificate_of,
    fingerprint,
    parsed,
    public_key,
    sha256,
    signed_by,
)
from atoll.errors import EgressError

__all__ = ["Standing", "stand"]


@dataclass(frozen=True)
class Standing:
    """The end of a record.

    file, size: what the next line goes into, and its bytes.   link: the last line.
    known: the last number of the head, which may be one behind.
    certificate: SHA-256 of the one that the file began with; "" before its first line.
    cut: bytes behind the end of the file; no part of the record.
    """

    file: int = 1
    size: int = 0
    link: Link = START
    known: int | None = None
    certificate: str = ""
    cut: bytes = b""


def stand(folder: Path, site: str, certificate: x509.Certificate) -> Standing:
    """Where the record of a site ends; nothing is written.

    Raises:
        EgressError: when it is another site's, or its end is not the one that its head tells of.
    """
    read, files = read_head(folder), files_in(folder)
    if read is None:
        if files:
            raise _wrong(folder / HEAD, "is missing, and there are lines that it should know")
        return Standing()
    head, value = read
    if head.site != site:
        raise _wrong(folder, f"holds the record of {head.site!r}, and this is {site!r}")
    path = file_at(folder, head.file)
    held = path.read_bytes() if path.is_file() else b""
    lines, rest = held[: head.size], held[head.size :]
    last = lines[lines.rfind(b"\n", 0, -1) + 1 :]
    if len(lines) < head.size or (head.size and sha256(last) != head.hash):
        raise _wrong(path, f"does not end with number {head.number}, the last that {HEAD} knows")
    begun = _begun(path, lines) if lines else certificate
    if not signed_by(value, public_key(begun)):
        raise _wrong(folder / HEAD, "has been edited, or signed by another key")
    here = Standing(head.file, head.size, Link(head.number, head.hash), head.number)
    here = replace(here, certificate=fingerprint(begun) if lines else "")
    after = file_at(folder, head.file + 1)
    if lines and not rest and after in files:
        # The process was killed after it had begun the next file.
        here, rest, path = replace(here, file=head.file + 1, size=0), after.read_bytes(), after
        here = replace(here, certificate="")
    elif files and number_of(files[-1]) != head.file:
        raise _wrong(files[-1], f"is not the file that {HEAD} names")
    return _with_rest(here, rest, path, certificate)


def _begun(path: Path, lines: bytes) -> x509.Certificate:
    """The certificate in the first of some lines."""
    try:
        first = line_of(parsed(lines[: lines.index(b"\n") + 1]))
        if isinstance(first, Begin):
            return certificate_of(first.certificate.encode())
    except ValueError:
        pass
    raise _wrong(path, "does not begin as Atoll begins it")


def _with_rest(here: Standing, rest: bytes, path: Path, certificate: x509.Certificate) -> Standing:
    """The standing with what was found behind the head: taken over, or marked for the cut."""
    if not rest:
        return here
    if (follower := _follower(here, rest, certificate)) is not None:
        return follower
    # Who comes with a new certificate cannot take over a line of the old one. More than one line
    # would be lines that did leave, behind an older head that was put back.
    renewed = here.certificate not in ("", fingerprint(certificate))
    if rest.count(b"\n") > renewed:
        raise _wrong(
            path, f"goes on after number {here.link.number} with lines that are not its own"
        )
    return replace(here, cut=rest)


def _follower(here: Standing, rest: bytes, certificate: x509.Certificate) -> Standing | None:
    """The standing after the one whole line that is the rest; None where it is no such line."""
    try:
        value = parsed(rest)
        line = line_of(value)
    except ValueError:
        return None
    own = fingerprint(certificate)
    begins = isinstance(line, Begin) and line.certificate_sha256 == own and not here.certificate
    if not (begins or (not isinstance(line, Begin) and here.certificate == own)):
        return None
    if not signed_by(value, public_key(certificate)):
        return None
    if (line.number, line.previous) != (here.link.number + 1, here.link.hash):
        return None
    link = Link(line.number, sha256(rest))
    return replace(here, size=here.size + len(rest), link=link, certificate=own)


def _wrong(path: Path, what: str) -> EgressError:
    return EgressError(
        f"{path} {what}; nothing leaves this site on such a record: find out who could write there "
        "(`atoll egress verify`), keep the folder, and begin a new record in another one"
    )
