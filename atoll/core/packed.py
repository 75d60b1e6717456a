"""Trees and a little JSON as one safetensors file, read back with suspicion.

    __metadata__   facts: JSON text of whoever packs · names: [[name, …], …], a list for each tree
    tensors        "0/name" is `name` of the first tree, whatever the name holds

The file sorts its tensors, the widest first; `names` keeps the order of each tree, and numbers
that are added up in that order keep their last bit.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from atoll.core.header import DTYPES, Described, Place, broken, described, header_length
from atoll.errors import PayloadError
from atoll.frames import LIMIT
from atoll.tree import Tree

__all__ = ["in_parts", "laid_out", "open_trees", "unpack_trees"]

CODES = {dtype: code for code, dtype in DTYPES.items()}


def laid_out(facts: str, trees: Sequence[Tree]) -> list[bytes | memoryview]:
    """One safetensors file in parts, of which tensors of the CPU are not copied.

    Raises:
        PayloadError: a tensor that no file can hold (sparse, complex, without values).
    """
    told = {"facts": facts, "names": json.dumps([list(tree) for tree in trees])}
    named = {f"{place}/{name}": v for place, tree in enumerate(trees) for name, v in tree.items()}
    return in_parts(named, told)


def in_parts(tree: Tree, told: Mapping[str, str]) -> list[bytes | memoryview]:
    """The same of one tree, whose names are `part/name`.

    told: the file's metadata.
    """
    tensors = {key: _plain(key.partition("/")[2], value) for key, value in tree.items()}
    # What is wide comes first, so that all of it is aligned.
    order = sorted(tensors, key=lambda key: (-tensors[key].element_size(), key))
    header: dict[str, object] = {"__metadata__": told} if told else {}
    at = 0
    for key in order:
        value = tensors[key]
        end = at + value.numel() * value.element_size()
        header[key] = {"dtype": CODES[value.dtype], "shape": list(value.shape),
                       "data_offsets": [at, end]}  # fmt: skip
        at = end
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise PayloadError(f"a tensor's name cannot travel: {error}") from None
    text += b" " * (-len(text) % 8)
    return [struct.pack("<Q", len(text)), text, *(_bytes_of(tensors[key]) for key in order)]


def unpack_trees(data: bytes, *, limit: int = LIMIT) -> tuple[str, tuple[Tree, ...]]:
    """The facts, still as text, and the trees.

    Raises:
        PayloadError: whatever is not of the form that `laid_out` gives.
    """
    if len(data) > limit:
        raise broken(f"it has {len(data)} bytes; at most {limit:,} are read")
    told = described(data, len(data))
    begin = 8 + header_length(data, len(data))
    found = _found(told, lambda place: _copied(data, begin, place))
    return told.facts, _trees(found, told)


def open_trees(
    path: Path, start: int, size: int, *, limit: int = LIMIT
) -> tuple[str, tuple[Tree, ...]]:
    """The same of `size` bytes of a file, whose tensors stay there: they are read when used."""
    if size > limit:
        raise broken(f"it has {size:,} bytes; at most {limit:,} are read")
    with path.open("rb") as opened:
        opened.seek(start)
        first = opened.read(min(8, size))
        length = header_length(first, size)
        told = described(first + opened.read(length), size)
        # A copy that is made where somebody writes: torch knows no memory that is only read.
        mapped = mmap.mmap(opened.fileno(), start + size, access=mmap.ACCESS_COPY)
    begin = start + 8 + length
    found = _found(told, lambda place: _mapped(mapped, begin, place))
    return told.facts, _trees(found, told)


def _found(told: Described, read: Callable[[Place], Tensor]) -> Tree:
    return {
        key: read(place) if place.end > place.start else torch.empty(place.shape, dtype=place.dtype)
        for key, place in told.places.items()
    }


def _copied(data: bytes, begin: int, place: Place) -> Tensor:
    raw = np.frombuffer(data, np.uint8, place.end - place.start, begin + place.start)
    return _shaped(torch.from_numpy(raw.copy()), place)


def _mapped(mapped: mmap.mmap, begin: int, place: Place) -> Tensor:
    size, start = place.end - place.start, begin + place.start
    raw = torch.frombuffer(mapped, dtype=torch.uint8, count=size, offset=start)
    return _shaped(raw.clone() if start % place.dtype.itemsize else raw, place)


def _shaped(raw: Tensor, place: Place) -> Tensor:
    return raw.view(place.dtype).reshape(place.shape)


def _trees(found: Tree, told: Described) -> tuple[Tree, ...]:
    for key, value in found.items():
        if value.dtype == torch.bool and bool((value.view(torch.uint8) > 1).any()):
            raise broken(f"{key!r} holds truth values other than 0 and 1")
    return tuple({name: found[f"{i}/{name}"] for name in tree} for i, tree in enumerate(told.names))


def _plain(name: str, value: Tensor) -> Tensor:
    if value.layout != torch.strided or value.is_meta or value.dtype not in CODES:
        kind = "without values" if value.is_meta else f"{value.dtype}, {value.layout}"
        raise PayloadError(
            f"'{name}' is a tensor that cannot travel ({kind.replace('torch.', '')}); send dense "
            "floats, integers or truth values"
        )
    return value.detach().cpu().contiguous()


def _bytes_of(value: Tensor) -> memoryview:
    return value.reshape(-1).view(torch.uint8).numpy().data
