"""Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174): blocks compute again in backward.

transformers' own switch asks for training mode, in which layers draw dropout. Here a frozen block
stays in eval mode, and runs again under the values, and with the draws, that it ran with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from atoll.tree import Tree

__all__ = ["lent", "recomputed"]


@contextmanager
def recomputed(
    blocks: Sequence[nn.Module],
    again: Callable[[], AbstractContextManager[None]],
    run: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda forward: forward,
) -> Iterator[None]:
    """Of each block only what it reads is kept for backward, as long as this lasts.

    again: called when a block begins; gives what must stand when it is run again.
    run: a block's forward to what is run in its place.
    """
    # One whose outputs are known already has a forward of its own.
    left = [block for block in blocks if "forward" not in vars(block)]
    for block in left:
        block.forward = _checkpointed(run(block.forward), again)
    try:
        yield
    finally:
        for block in left:
            del block.forward


def lent(model: nn.Module, values: Tree) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a part's forward run with `values` in the place of the model's own parameters."""

    def run(forward: Callable[..., Any]) -> Callable[..., Any]:
        # Parameters may be shared among blocks, so that all of the model's are lent to each.
        within = nn.Module()
        within.model = model
        within.forward = forward
        named = {f"model.{name}": value for name, value in values.items()}
        return lambda *args, **given: functional_call(within, named, args, given)

    return run


def _checkpointed(
    forward: Callable[..., Any], again: Callable[[], AbstractContextManager[None]]
) -> Callable[..., Any]:
    return lambda *args, **given: checkpoint(
        forward,
        *args,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), again()),
        **given,
    )
