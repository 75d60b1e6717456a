"""LoRA over a stack of clients (Hu et al. 2022, arXiv 2106.09685, eq. 3; rsLoRA: arXiv 2312.03732).

h = W0·x + s·B_k·A_k·x with s = α/r, or α/√r for rsLoRA. Names and shapes are PEFT's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from atoll.adapters.site import Frame, Site, split_clients
from atoll.tree import Tree

__all__ = ["lora_scale", "lora_site", "pad_rank"]


def lora_scale(*, r: int, lora_alpha: float, use_rslora: bool) -> float:
    """s of the equation above."""
    return lora_alpha / (math.sqrt(r) if use_rslora else r)


def lora_site(
    module: str, fan: tuple[int, int], *, r: int, scale: float, dropout: float = 0.0
) -> Site:
    """LoRA on one linear layer; A starts Kaiming-uniform and B at zero, as in PEFT."""
    d_in, d_out = fan
    name_a, name_b = f"{module}.lora_A.weight", f"{module}.lora_B.weight"

    def init(generator: torch.Generator) -> Tree:
        bound = 1 / math.sqrt(d_in)
        a = torch.empty(r, d_in).uniform_(-bound, bound, generator=generator)
        return {name_a: a, name_b: torch.zeros(d_out, r)}

    def apply(x: Tensor, out: Tensor, values: Tree, frame: Frame) -> Tensor:
        a, b = values[name_a], values[name_b]
        if dropout and frame.generators is not None:
            x = _drop(x, frame, dropout)
        x = split_clients(x.to(a.dtype), frame.clients)
        low = torch.bmm(x, a.transpose(1, 2))
        if frame.scales is not None:
            low = low * frame.scales.view(-1, 1, 1)
        factor = scale if frame.scales is None else 1.0
        if out.dtype != b.dtype:
            delta = torch.bmm(low, b.transpose(1, 2)).mul_(factor)
            return out + delta.view_as(out).to(out.dtype)
        stacked = split_clients(out, frame.clients)
        return torch.baddbmm(stacked, low, b.transpose(1, 2), alpha=factor).view_as(out)

    return Site(module, init, apply)


def _drop(x: Tensor, frame: Frame, rate: float) -> Tensor:
    """Inverted dropout; each client draws for its own rows and length, as it would alone."""
    assert frame.generators is not None
    mask = torch.zeros(frame.clients, x.shape[0] // frame.clients, *x.shape[1:], dtype=x.dtype)
    for k, ((rows, length), generator) in enumerate(
        zip(frame.extents, frame.generators, strict=True)
    ):
        own = mask[k, :rows, :length] if x.dim() == 3 else mask[k, :rows]
        own.copy_(torch.empty_like(own).bernoulli_(1 - rate, generator=generator))
    return x * mask.view_as(x).to(x.device).div_(1 - rate)


def pad_rank(tree: Tree, r: int) -> Tree:
    """Zero rows of A and columns of B up to rank r; zeros get no gradient, so they stay."""
    padded: Tree = {}
    for name, value in tree.items():
        rank_dim = 0 if name.endswith("lora_A.weight") else 1
        shape = list(value.shape)
        assert shape[rank_dim] <= r, f"{name} has rank {shape[rank_dim]}, more than {r}"
        shape[rank_dim] = r
        padded[name] = value.new_zeros(shape)
        padded[name].narrow(rank_dim, 0, value.shape[rank_dim]).copy_(value)
    return padded
