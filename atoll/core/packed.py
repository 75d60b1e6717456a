"""Trees and a little JSON as one safetensors file, read back with suspicion.

    __metadata__   facts: JSON text of whoever packs · names: [[name, …], …], a list for each tree
    tensors        "0/name" is `name` of the first tree, whatever the name holds

Safetensors sorts its tensors; `names` keeps the order of each tree, and numbers that are added up
in that order keep their last bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from atoll.core.header import DTYPES, HEADER, Names, broken, described, header_length
from atoll.errors import PayloadError
from atoll.frames import LIMIT
from atoll.tree import Tree

__all__ = ["open_trees", "pack_trees", "unpack_trees"]


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
    facts, names = described(data, len(data))
    with _readable():
        found = load(data)
    return facts, _trees(found, names)


def open_trees(path: Path, *, limit: int = LIMIT) -> tuple[str, tuple[Tree, ...]]:
    """The same of a file, whose tensors stay there: they are read where they are used."""
    size = path.stat().st_size
    if size > limit:
        raise broken(f"it has {size:,} bytes; at most {limit:,} are read")
    with path.open("rb") as opened:
        start = opened.read(8)
        header = start + opened.read(min(header_length(start, size), HEADER))
    facts, names = described(header, size)
    with _readable(), safe_open(path, "pt") as opened:
        found = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    return facts, _trees(found, names)


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise broken(f"its tensors cannot be read ({error})") from None


def _trees(found: Tree, names: Names) -> tuple[Tree, ...]:
    for key, value in found.items():
        if value.dtype == torch.bool and bool((value.view(torch.uint8) > 1).any()):
            raise broken(f"{key!r} holds truth values other than 0 and 1")
    return tuple({name: found[f"{i}/{name}"] for name in tree} for i, tree in enumerate(names))


def _plain(name: str, value: Tensor, seen: set[int]) -> Tensor:
    if value.layout != torch.strided or value.is_meta or value.dtype not in DTYPES.values():
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
