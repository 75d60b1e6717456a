"""The record of what has left, for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from atoll.egress.verify import Verified
from atoll.report.words import MISSING, bytes_text, number, short
from atoll.words import counted

__all__ = ["show_lines", "show_manifest", "show_verified"]

LONG = 64
"""Characters of a name or a message that are shown; JSON has all."""


def show_verified(path: Path, found: Verified, *, checked: bool) -> None:
    """What was checked, and what left, run by run."""
    console = Console(highlight=False)
    console.print("\n".join(_head(path, found, checked)), markup=False, soft_wrap=True)
    if not found.runs:
        return
    table = _table(["run"], ["messages", "bytes", "rounds", "largest norm"], ["of"])
    for name, run in found.runs.items():
        table.add_row(
            _cell(name),
            str(run.messages),
            bytes_text(run.bytes),
            str(len(run.rounds)),
            number(run.norm),
            _cell(run.tensor or MISSING),
        )
    console.print()
    console.print(table)


def _head(path: Path, found: Verified, checked: bool) -> Iterator[str]:
    if found.lines == 0:
        yield f"{path}: begun, and nothing has left"
        return
    yield (
        f"{path}: whole. {counted(found.lines, 'line')} in {counted(found.files, 'file')} of "
        f"{short(found.site or MISSING, LONG)}, number {found.number} the last, {found.first} to "
        f"{found.last}"
    )
    yield f"{counted(found.messages, 'message')} with {bytes_text(found.bytes)} left"
    whose = "as given" if checked else "as the record says; --certificate checks whose it is"
    for one in found.certificates:
        yield f"signed by the key of the certificate {one} ({whose})"
    if found.cuts:
        yield f"cut off after a kill, and never sent: {counted(found.cuts, 'unfinished line')}"
    if found.unfinished:
        yield (
            f"{counted(found.unfinished, 'byte')} of a line at the end are unfinished: it is being "
            "written, or its process was killed; it has not left"
        )


def show_lines(lines: Sequence[Mapping[str, Any]]) -> None:
    """A row for each message that left."""
    table = _table(
        ["number", "time (UTC)", "run", "round", "task"], ["tensors", "bytes", "norm"], ["said"]
    )
    for line in lines:
        # A single number is a count or a metric, which would outweigh an update.
        norms = [one["l2"] for one in line["tensors"] if math.prod(one["shape"]) > 1]
        whole = None if None in norms or not norms else sum(one**2 for one in norms) ** 0.5
        table.add_row(
            str(line["number"]),
            line["time"][:19].replace("T", " "),
            _cell(line["run"]),
            str(line["round"]),
            _cell(line["task"]),
            str(len(line["tensors"])),
            bytes_text(line["bytes"]),
            number(whole),
            _cell(line["text"] or ""),
        )
    Console(highlight=False).print(table)


def show_manifest(path: Path, facts: Mapping[str, Any]) -> None:
    """What a run was, and who took part."""
    console = Console(highlight=False)
    known = {name: item for name, item in facts.items() if isinstance(item, str)}
    lines = [
        f"{path}: as the server signed it",
        *(
            f"{name}: {short(item, 2 * LONG)}"
            for name, item in known.items()
            if name != "experiment"
        ),
    ]
    console.print("\n".join(lines), markup=False, soft_wrap=True)
    table = _table(["participant", "certificate (SHA-256)"], ["first round", "last round"], [])
    for one in facts.get("participants", ()):
        table.add_row(
            _cell(one["name"]),
            _cell(one["certificate_sha256"]),
            str(one["first_round"]),
            str(one["last_round"]),
        )
    console.print()
    console.print(table)


def _cell(text: str) -> str:
    """A name from the record, which may hold anything."""
    return escape(short(text, LONG))


def _table(left: Sequence[str], right: Sequence[str], end: Sequence[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for name in left:
        table.add_column(name, no_wrap=name.startswith("time"), overflow="fold")
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    for name in end:
        table.add_column(name)
    return table
