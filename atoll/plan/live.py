"""Bytes of tensors that are alive at once, counted while something runs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["peak_bytes"]


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes that the tensors which `work` makes take at one time.

    It does not depend on the allocator or on what else the machine does.
    """
    counter = _Counter()
    with counter:
        work()
    return counter.peak


class _Counter(TorchDispatchMode):
    """Sees every operation, of backward passes too, and the memory of each result."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = {_memory(value)._cdata for value in _tensors((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for value in _tensors(out):
            memory = _memory(value)
            # A view of what was there before takes nothing.
            if memory._cdata not in self._seen and memory._cdata not in given:
                self._add(memory)
        return out

    def _add(self, memory: torch.UntypedStorage) -> None:
        size = memory.nbytes()
        self._seen.add(memory._cdata)
        weakref.finalize(memory, self._drop, memory._cdata, size).atexit = False
        self.now += size
        self.peak = max(self.peak, self.now)

    def _drop(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def _tensors(values: object) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _memory(value: Tensor) -> torch.UntypedStorage:
    return value.untyped_storage()
