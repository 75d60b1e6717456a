"""What a safetensors file says before its tensors, read with suspicion."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    TypeAdapter,
    ValidationError,
)

from atoll.errors import PayloadError
from atoll.frames import LIMIT

__all__ = ["DTYPES", "HEADER", "Described", "Place", "broken", "described", "header_length"]

HEADER = 2**24
"""Bytes of names, shapes and facts: enough for 100,000 tensors."""


DTYPES = {
    "BF16": torch.bfloat16, "BOOL": torch.bool, "F16": torch.float16, "F32": torch.float32,
    "F64": torch.float64, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "I8": torch.int8, "U8": torch.uint8,
}  # fmt: skip
Names = tuple[tuple[str, ...], ...]
_NAMES = TypeAdapter(Names)


class _Entry(BaseModel):
    """A tensor in the header."""

    model_config = ConfigDict(extra="forbid")

    dtype: str
    shape: Annotated[list[NonNegativeInt], Field(max_length=32)]
    data_offsets: Annotated[list[NonNegativeInt], Field(min_length=2, max_length=2)]


class Place(NamedTuple):
    """Where a tensor's bytes lie, from the first byte behind the header on."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


class Described(NamedTuple):
    """What the first bytes of a file say; a place for each name ("0/w") of the names."""

    facts: str
    names: Names
    places: dict[str, Place]


def described(data: bytes, whole: int) -> Described:
    """What a file of `whole` bytes holds, by its first ones.

    Raises:
        PayloadError: a tensor that is not described as one is, or that has no name.
    """
    header = _header(data, whole)
    facts, names = _metadata(header.pop("__metadata__", None))
    places = {key: _place(key, entry) for key, entry in header.items()}
    _check_tiles(places.values(), whole - 8 - header_length(data, whole))
    keys = [f"{place}/{name}" for place, tree in enumerate(names) for name in tree]
    odd = sorted(set(keys) ^ header.keys())
    if odd or len(keys) != len(header):
        what = repr(odd[0]) if odd else "a name that stands twice"
        raise broken(f"its list of names does not match its tensors: {what}")
    return Described(facts, names, places)


def broken(why: str) -> PayloadError:
    """What to raise about bytes from the other side."""
    return PayloadError(f"a record that came is refused: {why}")


def header_length(data: bytes, whole: int) -> int:
    """Bytes of the header, of a file of so many."""
    if len(data) < 8:
        raise broken(f"it has {len(data)} bytes")
    (size,) = struct.unpack_from("<Q", data)
    if size > min(HEADER, whole - 8):
        raise broken(f"of its {whole:,} bytes, {size:,} would be the header")
    return int(size)


def _header(data: bytes, whole: int) -> dict[str, Any]:
    size = header_length(data, whole)
    try:
        header = json.loads(data[8 : 8 + size].decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise broken(f"its header is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise broken("its header is no JSON object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        # Readers differ in which of two they take.
        raise ValueError("a name stands twice")
    return found


def _metadata(held: object) -> tuple[str, Names]:
    if not isinstance(held, dict) or held.keys() != {"facts", "names"}:
        raise broken("its metadata are not facts and names")
    try:
        return str(held["facts"]), _NAMES.validate_json(held["names"], strict=True)
    except (ValidationError, TypeError):
        raise broken("its names are no lists of text") from None


def _place(key: str, entry: object) -> Place:
    """A tensor's dtype, shape and bytes."""
    try:
        found = _Entry.model_validate(entry, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise broken(f"{key!r} is not described as a tensor is: {place} {first['msg']}") from None
    # Larger strides overflow, also where an empty tensor needs no bytes.
    if found.dtype not in DTYPES or math.prod(max(size, 1) for size in found.shape) > LIMIT:
        raise broken(f"{key!r} is {found.dtype}{found.shape}")
    (start, end), dtype = found.data_offsets, DTYPES[found.dtype]
    if end - start != math.prod(found.shape) * dtype.itemsize:
        raise broken(f"{key!r} is {found.dtype}{found.shape} in {end - start} bytes")
    return Place(dtype, tuple(found.shape), start, end)


def _check_tiles(places: Iterable[Place], size: int) -> None:
    """Every byte behind the header belongs to one tensor."""
    at = 0
    for place in sorted(places, key=lambda one: (one.start, one.end)):
        if place.start != at:
            raise broken(f"its tensors leave out bytes, or share them, at {at:,}")
        at = place.end
    if at != size:
        raise broken(f"its tensors take {at:,} of {size:,} bytes")
