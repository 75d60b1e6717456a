"""The lines of a ledger, one JSON object each, chained by the hashes of their bytes."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atoll.accounting import Event

__all__ = [
    "FILE",
    "HEAD",
    "START",
    "Begin",
    "Entry",
    "Head",
    "Released",
    "hash_of",
    "line_of",
    "raw",
]

FILE, HEAD = "ledger.jsonl", "ledger.head"
START = "0" * 64
"""What the first line goes on from."""
_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)
Number = Annotated[int, Field(ge=0)]


class Entry(BaseModel):
    """A release.

    noise: tells releases of one exchange apart; a line with the same run, exchange and noise is the
    same release, begun again after a crash.
    release: None for a question that is part of a release which is written down already.
    """

    model_config = _STRICT

    run: str
    round: Number
    exchange: Number
    noise: str
    release: Event | None


class Begin(BaseModel):
    """The first line: whom the ledger protects, in which data set.   data: its fingerprint."""

    model_config = _STRICT

    kind: Literal["begin"] = "begin"
    number: Literal[0] = 0
    time: str
    atoll: str
    data: str
    previous: str = START


class Released(BaseModel):
    """A release, and what all lines up to it come to; epsilon: None where it is infinite."""

    model_config = _STRICT

    kind: Literal["release"] = "release"
    number: Annotated[int, Field(ge=1)]
    time: str
    entry: Entry
    epsilon: Annotated[float, Field(ge=0)] | None
    delta: Annotated[float, Field(gt=0, lt=1)]
    previous: str


class Head(BaseModel):
    """The last line that counts: nothing can be taken off the end unseen."""

    model_config = _STRICT

    number: Number
    size: Number
    hash: str


def raw(line: BaseModel) -> bytes:
    """Its bytes, with the line break."""
    value = line.model_dump(mode="json")
    return (json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n").encode()


def hash_of(line: bytes) -> str:
    """By which the next line goes on from it."""
    return hashlib.sha256(line).hexdigest()


def line_of(line: bytes, number: int) -> Begin | Released:
    """The line of a number, from its bytes.

    Raises:
        ValueError: for bytes that Atoll did not write there.
    """
    try:
        kind: type[Begin] | type[Released] = Begin if number == 0 else Released
        found = kind.model_validate_json(line)
    except ValidationError as error:
        raise ValueError("it is not what Atoll writes") from error
    if found.number != number or raw(found) != line:
        raise ValueError("it is not what Atoll writes")
    return found
