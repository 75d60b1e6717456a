"""Where a model starts to train: the blocks below that are the same for every client and step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from atoll.adapters.stacked import StackedModel
from atoll.models.objective import Batch

__all__ = ["Boundary", "find_boundary"]


class _Reached(Exception):
    """The prefix has run; the rest is not needed."""


@dataclass(frozen=True)
class Boundary:
    """Blocks of a model that run one after another, and that nothing trained stands in or below."""

    model: StackedModel
    below: tuple[nn.Module, ...]

    def prefix(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """What the frozen blocks make of a batch, [N, T, d]."""
        found: list[Tensor] = []

        def catch(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
            found.append(out)
            raise _Reached

        hook = self.below[-1].register_forward_hook(catch)
        try:
            # Its values are kept for training, which takes no tensors of inference mode.
            with torch.inference_mode(False), torch.no_grad():
                self.model.model(**inputs)
        except _Reached:
            return found[0]
        finally:
            hook.remove()
        raise AssertionError("a block of the model was not run")

    @contextmanager
    def skipped(self, hidden: Tensor) -> Iterator[None]:
        """The blocks do nothing, and what follows them gets `hidden`."""
        for block in self.below:
            # A model gives its blocks more than the hidden states, by place and by name.
            block.forward = lambda hidden_states, *_, **__: hidden_states
        self.below[-1].forward = lambda *_, **__: hidden
        try:
            yield
        finally:
            for block in self.below:
                del block.forward


def find_boundary(model: StackedModel, batch: Batch) -> Boundary | None:
    """The longest frozen prefix of a model's blocks; None where there is none worth keeping.

    Blocks are the one list of modules of one class that run one after another, as transformers'
    encoders and decoders have. `batch` is run once.
    """
    trained = set(model.touched)
    named = dict(model.model.named_modules())
    lists = [
        name for name, module in named.items()
        if isinstance(module, nn.ModuleList) and len({type(block) for block in module}) == 1
        and len(module) > 1
    ]  # fmt: skip
    inside = {name: _depth(name, trained) for name in lists}
    holding = [name for name in lists if inside[name] is not None] or lists
    outermost = [name for name in holding if not any(name.startswith(f"{x}.") for x in holding)]
    if len(outermost) != 1:
        return None
    blocks = list(named[outermost[0]].children())
    depth = inside[outermost[0]]
    below = blocks if depth is None else blocks[:depth]
    if not below or not _runs_in_order(model, batch, below, trained, named):
        return None
    return Boundary(model, tuple(below))


def _depth(name: str, trained: set[str]) -> int | None:
    """The first block of a list that trains."""
    start = f"{name}."
    found = [
        int(module.removeprefix(start).split(".")[0])
        for module in trained
        if module.startswith(start)
    ]
    return min(found, default=None)


def _runs_in_order(
    model: StackedModel,
    batch: Batch,
    blocks: list[nn.Module],
    trained: set[str],
    named: Mapping[str, nn.Module],
) -> bool:
    """Whether the blocks pass one tensor on, once, and run before everything that trains."""
    seen: list[nn.Module] = []
    passed: list[bool] = []

    def look(module: nn.Module, args: tuple[Any, ...], given: dict[str, Any], out: Any) -> None:
        passed.append(isinstance(out, Tensor) and (bool(args) or "hidden_states" in given))

    watched = [*blocks, *(named[name] for name in trained)]
    hooks = [module.register_forward_pre_hook(lambda module, args: seen.append(module))
             for module in watched]  # fmt: skip
    hooks += [block.register_forward_hook(look, with_kwargs=True) for block in blocks]
    try:
        with torch.no_grad():
            model.model(**batch.inputs)
    finally:
        for hook in hooks:
            hook.remove()
    first, later = seen[: len(blocks)], seen[len(blocks) :]
    return all(passed) and first == blocks and not set(blocks) & set(later)
