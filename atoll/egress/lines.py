"""The lines of a record: `begin` first in a file, `sent` for a departure, `cut` after a kill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    TypeAdapter,
)

from atoll.egress.seal import SIGNATURE

__all__ = [
    "START",
    "Begin",
    "Cut",
    "Head",
    "Line",
    "Link",
    "Privacy",
    "Sent",
    "TensorFacts",
    "head_of",
    "line_of",
]

_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)


class TensorFacts(BaseModel):
    """A tensor that left, as it was on the wire; l2 is None where values were not finite."""

    model_config = _STRICT

    channel: str
    name: str
    shape: list[NonNegativeInt]
    dtype: str
    bytes: NonNegativeInt
    l2: FiniteFloat | None


class Privacy(BaseModel):
    """What the departure spent; None where no mechanism bounds it."""

    model_config = _STRICT

    epsilon: FiniteFloat | None = None


class Begin(BaseModel):
    """A file's first line: whose it is, and the certificate that its signatures are checked by."""

    model_config = _STRICT

    number: NonNegativeInt
    kind: Literal["begin"] = "begin"
    time: str
    file: PositiveInt
    site: str
    atoll: str
    certificate: str
    certificate_sha256: str
    previous: str


class Sent(BaseModel):
    """A message that was about to leave; bytes and sha256 are of the whole message."""

    model_config = _STRICT

    number: NonNegativeInt
    kind: Literal["sent"] = "sent"
    time: str
    run: str
    round: int
    exchange: int
    task: str
    tensors: list[TensorFacts]
    bytes: NonNegativeInt
    sha256: str
    privacy: Privacy
    text: str | None
    previous: str


class Cut(BaseModel):
    """What a process that was killed had written of a line: taken away, and never sent."""

    model_config = _STRICT

    number: NonNegativeInt
    kind: Literal["cut"] = "cut"
    time: str
    bytes: PositiveInt
    sha256: str
    previous: str


Line = Begin | Sent | Cut
_LINES: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="kind")])


class Head(BaseModel):
    """The end of the record; number −1 before its first line.

    size: bytes of the last file up to there.
    """

    model_config = _STRICT

    kind: Literal["head"] = "head"
    site: str
    file: PositiveInt
    size: NonNegativeInt
    number: int
    hash: str


@dataclass(frozen=True)
class Link:
    """A line by its number, and by SHA-256 of its bytes with the line break."""

    number: int
    hash: str


START = Link(-1, "0" * 64)
"""What the first line of a record goes on from."""


def head_of(value: dict[str, Any]) -> Head:
    """A parsed head; see `line_of`."""
    return Head.model_validate(_unsigned(value))


def line_of(value: dict[str, Any]) -> Line:
    """A parsed line.

    Raises:
        ValueError: for one that has other keys than Atoll writes.
    """
    return _LINES.validate_python(_unsigned(value))


def _unsigned(value: dict[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in value.items() if name != SIGNATURE}
