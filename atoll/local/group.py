"""How many clients share one forward pass."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import nn

from atoll.adapters.site import Frame, fan
from atoll.local.bench import Bench
from atoll.models.objective import Batch, Example
from atoll.tree import Tree

__all__ = ["group_size"]

CPU_VALUES = 512 * 384
"""Values of one layer's input at which a CPU has no more overhead to save: about what its own cache
holds: 512 tokens of MiniLM; measured in `benchmarks/overhead`."""
CPU_TOKENS = 1280
"""And no more than this, for the sake of memory: what all tokens leave is kept for backward."""
SAMPLE = 8
PROBED = 16
"""Tokens of a text that are run to see what one costs."""
SHARE = 0.5
BUFFERS = 5
"""Copies of what trains that a client has: values, gradients, moments."""


def group_size(bench: Bench, *, clients: Sequence[str]) -> int:
    """As many clients as pay on a CPU, or as half of the free memory holds."""
    rows = [
        example for client in clients[:SAMPLE] for example in bench.examples(client, "train")[:64]
    ]
    if not rows:
        return 1
    saved, tokens, values = _one_row(bench, rows[0].cut(PROBED))
    # Text grows with its length; images and the like are all of one size.
    longer = sum(map(len, rows)) / len(rows) / max(len(rows[0].cut(PROBED)), 1) or 1.0
    size = bench.settings.per_device_train_batch_size
    batch = size * longer
    # A row that is hidden has values and a gradient of its own.
    copies = BUFFERS + (0 if bench.private is None else 2 * size)
    fits = int(SHARE * _free_bytes(bench.device) / max(saved * batch + copies * values, 1))
    most = min(CPU_VALUES // _width(bench), CPU_TOKENS)
    pays = int(most // (batch * tokens)) if bench.device.type == "cpu" else fits
    return max(1, min(pays, fits, len(clients)))


def _width(bench: Bench) -> int:
    """Features of a token, as the narrowest adapted layer reads them."""
    layers = [bench.model.model.get_submodule(site.module) for site in bench.model.sites]
    return min((shape[0] for layer in layers if (shape := fan(layer))), default=384)


def _one_row(bench: Bench, example: Example) -> tuple[int, int, int]:
    """Of one row: bytes kept for its backward, and its tokens; and a client's values in bytes."""
    read: list[int] = []
    tokens = 1

    def look(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        nonlocal tokens
        tokens = max(tokens, args[0].numel() // args[0].shape[-1])

    def weigh(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        read.extend(one.nbytes for one in args[:1])

    layers = [bench.model.model.get_submodule(site.module) for site in bench.model.sites]
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    hooks += [block.register_forward_pre_hook(weigh) for block in bench.model.blocks]
    first = next(iter(bench.model.model.parameters()))
    values = {
        name: value.to(first).unsqueeze(0).requires_grad_()
        for name, value in bench.model.init(0).items()
    }
    batch = bench.objective.collate([example]).to(bench.device)
    try:
        saved, blocks = _saved(bench, values, batch), len(bench.model.blocks)
        if blocks:
            # Of each block what it reads is kept, and in backward all of one at a time.
            inputs = sum(read)
            with bench.model.keeping_all():
                saved += inputs + (_saved(bench, values, batch) - saved) // blocks
    finally:
        for hook in hooks:
            hook.remove()
    return saved, tokens, sum(value.numel() * value.element_size() for value in values.values())


def _saved(bench: Bench, values: Tree, batch: Batch) -> int:
    """Bytes that a forward pass keeps for backward, weights apart."""
    saved = 0

    def count(value: torch.Tensor) -> torch.Tensor:
        nonlocal saved
        if value.dim() > 1 and not value.is_leaf:
            saved += value.numel() * value.element_size()
        return value

    with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
        bench.model.forward(values, batch.inputs, Frame(1, ((batch.views, batch.length),)))
    return saved


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
