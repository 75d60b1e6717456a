"""Trees and a little JSON as one safetensors file, read back with suspicion.

    __metadata__   facts: JSON text of whoever packs · names: [[name, …], …], a list for each tree
    tensors        "0/name" is `name` of the first tree, whatever the name holds

Safetensors sorts its tensors; `names` keeps the order of each tree, and numbers that are added up
in that order keep their last bit.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    TypeAdapter,
    ValidationError,
)
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from atoll.errors import PayloadError
from atoll.frames import LIMIT
from atoll.tree import Tree

__all__ = ["broken", "pack_trees", "unpack_trees"]

HEADER = 2**24
"""Bytes of names, shapes and facts: enough for 100,000 tensors."""

_DTYPES = {
    "BF16": torch.bfloat16, "BOOL": torch.bool, "F16": torch.float16, "F32": torch.float32,
    "F64": torch.float64, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "I8": torch.int8, "U8": torch.uint8,
}  # fmt: skip
_NAMES = TypeAdapter(tuple[tuple[str, ...], ...])


class _Entry(BaseModel):
    """A tensor in the header."""

    model_config = ConfigDict(extra="forbid")

    dtype: str
    shape: Annotated[list[NonNegativeInt], Field(max_length=32)]
    data_offsets: list[NonNegativeInt]


def pack_trees(facts: str, trees: Sequence[Tree]) -> bytes:
    """One safetensors file; tensors come back on the CPU, contiguous, and sharing no memory.

    Raises:
        PayloadError: a tensor that no file can hold (sparse, complex, without values).
    """
    seen: set[int] = set()
    tensors = {
        f"{place}/{name}": _plain(name, value, seen)
        for place, tree in enumerate(trees)
        for name, value in tree.items()
    }
    metadata = {"facts": facts, "names": json.dumps([list(tree) for tree in trees])}
    try:
        return save(tensors, metadata)
    except UnicodeEncodeError as error:
        raise PayloadError(f"a tensor's name cannot travel: {error}") from None


def unpack_trees(data: bytes, *, limit: int = LIMIT) -> tuple[str, tuple[Tree, ...]]:
    """The facts, still as text, and the trees.

    Raises:
        PayloadError: whatever is not exactly what `pack_trees` writes.
    """
    if len(data) > limit:
        raise broken(f"it has {len(data):,} bytes; at most {limit:,} are read")
    header = _header(data)
    facts, names = _metadata(header.pop("__metadata__", None))
    for key, entry in header.items():
        _check_entry(key, entry)
    keys = [f"{place}/{name}" for place, tree in enumerate(names) for name in tree]
    odd = sorted(set(keys) ^ header.keys())
    if odd or len(keys) != len(header):
        what = repr(odd[0]) if odd else "a name that stands twice"
        raise broken(f"its list of names does not match its tensors: {what}")
    try:
        found = load(data)
    except SafetensorError as error:
        raise broken(f"its tensors cannot be read ({error})") from None
    for key, value in found.items():
        if value.dtype == torch.bool and bool((value.view(torch.uint8) > 1).any()):
            raise broken(f"{key!r} holds truth values other than 0 and 1")
    trees = ({name: found[f"{i}/{name}"] for name in tree} for i, tree in enumerate(names))
    return facts, tuple(trees)


def broken(why: str) -> PayloadError:
    """What to raise about bytes from the other side."""
    return PayloadError(f"a record that came is refused: {why}")


def _plain(name: str, value: Tensor, seen: set[int]) -> Tensor:
    if value.layout != torch.strided or value.is_meta or value.dtype not in _DTYPES.values():
        kind = "without values" if value.is_meta else f"{value.dtype}, {value.layout}"
        raise PayloadError(
            f"'{name}' is a tensor that cannot travel ({kind.replace('torch.', '')}); send dense "
            "floats, integers or truth values"
        )
    value = value.detach().cpu().contiguous()
    place = value.untyped_storage().data_ptr()
    if place in seen:
        value = value.clone()
    seen.add(value.untyped_storage().data_ptr())
    return value


def _header(data: bytes) -> dict[str, Any]:
    if len(data) < 8:
        raise broken(f"it has {len(data)} bytes")
    (size,) = struct.unpack_from("<Q", data)
    if size > min(HEADER, len(data) - 8):
        raise broken(f"of its {len(data):,} bytes, {size:,} would be the header")
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


def _metadata(held: object) -> tuple[str, tuple[tuple[str, ...], ...]]:
    if not isinstance(held, dict) or held.keys() != {"facts", "names"}:
        raise broken("its metadata are not facts and names")
    try:
        return str(held["facts"]), _NAMES.validate_json(held["names"], strict=True)
    except (ValidationError, TypeError):
        raise broken("its names are no lists of text") from None


def _check_entry(key: str, entry: object) -> None:
    """A tensor's dtype and shape; the library checks where its bytes lie."""
    try:
        found = _Entry.model_validate(entry, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise broken(f"{key!r} is not described as a tensor is: {place} {first['msg']}") from None
    # Larger strides overflow, also where an empty tensor needs no bytes.
    if found.dtype not in _DTYPES or math.prod(max(size, 1) for size in found.shape) > LIMIT:
        raise broken(f"{key!r} is {found.dtype}{found.shape}")
