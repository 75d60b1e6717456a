"""Whether a record is as its site wrote it, and what it comes to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from atoll.egress.lines import Begin, Cut, Sent
from atoll.egress.read import Unfinished, read

__all__ = ["RunTotals", "Verified", "verify"]


@dataclass
class RunTotals:
    """What left for one run.

    rounds: those in which something left.   norm, tensor: the largest norm, and whose it is, among
        tensors of more than one value; a single number is a count or a metric.
    """

    messages: int = 0
    bytes: int = 0
    rounds: set[int] = field(default_factory=set)
    norm: float | None = None
    tensor: str | None = None


@dataclass
class Verified:
    """A record that is whole.

    files, lines: that were read.   messages, bytes: of departures, in all.
    first, last: times of lines.   number: of the last line.
    certificates: SHA-256 of those that the lines are signed by.
    cuts: lines that a kill left unfinished.   unfinished: bytes of such a piece at the end.
    """

    site: str | None = None
    files: int = 0
    lines: int = 0
    messages: int = 0
    bytes: int = 0
    first: str | None = None
    last: str | None = None
    number: int | None = None
    certificates: list[str] = field(default_factory=list)
    runs: dict[str, RunTotals] = field(default_factory=dict)
    cuts: int = 0
    unfinished: int = 0


def verify(path: Path, *certificates: x509.Certificate) -> Verified:
    """Check a folder, or one file of it, line by line.

    certificates: the site's; more than one where it was renewed. Without any, the record is checked
    against the certificates that it brings along itself: nothing then says whose they are.

    Raises:
        EgressError: naming the first line that is wrong, and how: edited, inserted, removed,
            reordered, signed by another key; or that lines are missing at the end.
        RunError: when there is no record, or it cannot be read.
    """
    found = Verified()
    for line in read(path, certificates):
        if isinstance(line, Unfinished):
            found.unfinished = line.bytes
            continue
        found.lines += 1
        found.number = line.number
        found.first, found.last = found.first or line.time, line.time
        match line:
            case Begin():
                found.site = line.site
                found.files += 1
                if line.certificate_sha256 not in found.certificates:
                    found.certificates.append(line.certificate_sha256)
            case Cut():
                found.cuts += 1
            case Sent():
                found.messages += 1
                found.bytes += line.bytes
                _count(found.runs.setdefault(line.run, RunTotals()), line)
    return found


def _count(totals: RunTotals, line: Sent) -> None:
    totals.messages += 1
    totals.bytes += line.bytes
    totals.rounds.add(line.round)
    for tensor in line.tensors:
        if math.prod(tensor.shape) < 2 or tensor.l2 is None:
            continue
        if totals.norm is None or tensor.l2 > totals.norm:
            totals.norm, totals.tensor = tensor.l2, f"{tensor.channel}/{tensor.name}"
