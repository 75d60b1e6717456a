"""How many clients share one forward pass."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from atoll.adapters.site import Frame, fan
from atoll.local.bench import Bench

__all__ = ["group_size"]

CPU_VALUES = 512 * 384
"""Values of one layer's input at which a CPU has no more overhead to save: about what its own cache
holds: 512 tokens of MiniLM; measured in `benchmarks/overhead`."""
CPU_TOKENS = 1280
"""And no more than this, for the sake of memory: what all tokens leave is kept for backward."""
SAMPLE = 8
SHARE = 0.5


def group_size(bench: Bench, *, clients: Sequence[str]) -> int:
    """As many clients as pay on a CPU, or as half of the free memory holds."""
    rows = [
        example for client in clients[:SAMPLE] for example in bench.examples(client, "train")[:64]
    ]
    if not rows:
        return 1
    length = max(1, round(sum(map(len, rows)) / len(rows)))
    batch = bench.settings.per_device_train_batch_size
    fits = int(SHARE * _free_bytes(bench.device) / _bytes_per_client(bench, batch, length))
    tokens = min(CPU_VALUES // _width(bench), CPU_TOKENS)
    pays = tokens // (batch * length) if bench.device.type == "cpu" else fits
    return max(1, min(pays, fits, len(clients)))


def _width(bench: Bench) -> int:
    """Features of a token, as the narrowest adapted layer reads them."""
    layers = [bench.model.model.get_submodule(site.module) for site in bench.model.sites]
    return min((shape[0] for layer in layers if (shape := fan(layer))), default=384)


def _bytes_per_client(bench: Bench, batch: int, length: int) -> int:
    """Activations kept for one client's backward, measured on one row, and its five buffers."""
    saved = 0

    def count(value: torch.Tensor) -> torch.Tensor:
        nonlocal saved
        if value.dim() > 1 and not value.is_leaf:
            saved += value.numel() * value.element_size()
        return value

    first = next(iter(bench.model.model.parameters()))
    values = {
        name: value.to(first).unsqueeze(0).requires_grad_()
        for name, value in bench.model.init(0).items()
    }
    row = bench.objective.collate([None])
    inputs = {name: value.expand(1, 16).to(bench.device) for name, value in row.inputs.items()}
    with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
        bench.model.forward(values, inputs, Frame(1, ((1, 16),)))
    buffers = 5 * sum(value.numel() * value.element_size() for value in values.values())
    return max(1, saved * batch * length // 16 + buffers)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
