"""Only the largest values travel; the rest waits at the client."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from atoll.core import Context, Payload, Stage, Tree
from atoll.errors import ConfigError, PayloadError
from atoll.stages.received import describe, received

__all__ = ["top_k"]

CHANNEL = "update"
# No torch module puts a colon into the name of a parameter.
INDICES = ":indices"


def top_k(*, fraction: float) -> Stage:
    """Send the k = max(1, round(fraction · size)) largest magnitudes of each tensor, with memory.

    What is not sent is added to the client's next update: m ← m + x − top_k(m + x). An update
    travels as k values in the tensor's name and k places, int32 and ascending, in
    `<name>:indices`. The memory can lengthen a later update, so that no bound is known afterwards;
    it does not hold what a later stage rounds away, which is unbiased.
    Source: Stich, Cordonnier, Jaggi, Sparsified SGD with Memory (NeurIPS 2018, arXiv 1809.07599),
    Algorithm 1.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(
            f"stage 'top_k': fraction is {fraction}; give a number above 0, at most 1"
        )

    def encode(context: Context, payload: Payload, state: Tree) -> tuple[Payload, Tree]:
        packed, memory = _split(payload[CHANNEL].tree, state, fraction)
        channel = replace(payload[CHANNEL], tree=packed, l2=None)
        return {**payload, CHANNEL: channel}, memory

    def decode(context: Context, payload: Payload, like: Payload) -> Payload:
        dense = _joined(received(payload, CHANNEL), like[CHANNEL].tree, fraction)
        return {**payload, CHANNEL: payload[CHANNEL].with_tree(dense)}

    return Stage(
        "top_k",
        (CHANNEL,),
        encode,
        decode,
        bound=lambda met: None,
        packs=True,
        dense_floats=True,
        data_support=True,
    )


def _split(tree: Tree, state: Tree, fraction: float) -> tuple[Tree, Tree]:
    """What travels, and what waits."""
    packed: Tree = {}
    memory: Tree = {}
    for name, value in tree.items():
        kept = state.get(name)
        # A memory of another shape belongs to another model.
        whole = value + kept if kept is not None and kept.shape == value.shape else value
        places = _largest(whole, count=_count(whole, fraction))
        packed[name] = whole.reshape(-1)[places]
        packed[f"{name}{INDICES}"] = places.to(torch.int32)
        memory[name] = whole.reshape(-1).index_fill(0, places, 0).view(value.shape)
    return packed, memory


def _joined(tree: Tree, like: Tree, fraction: float) -> Tree:
    odd = sorted(tree.keys() ^ {key for name in like for key in (name, f"{name}{INDICES}")})
    if odd:
        raise PayloadError(
            f"tensors of channel '{CHANNEL}' do not match what was asked for: " + ", ".join(odd[:3])
        )
    return {
        name: _dense(name, tree, shape, count=_count(shape, fraction))
        for name, shape in like.items()
    }


def _count(value: Tensor, fraction: float) -> int:
    return min(value.numel(), max(1, round(fraction * value.numel())))


def _largest(value: Tensor, *, count: int) -> Tensor:
    assert value.numel() < 1 << 31, "places are int32"
    return value.reshape(-1).abs().topk(count, sorted=False).indices.sort().values


def _dense(name: str, tree: Tree, like: Tensor, *, count: int) -> Tensor:
    values, places = tree[name], tree[f"{name}{INDICES}"]
    for got, dtype in ((values, like.dtype), (places, torch.int32)):
        if got.dtype != dtype or got.shape != (count,):
            want = f"{str(dtype).removeprefix('torch.')}[{count}]"
            raise PayloadError(
                f"'{name}' of channel '{CHANNEL}' came as {describe(values)} at places "
                f"{describe(places)}, expected {want} there"
            )
    ascending = bool((places.long().diff() > 0).all())
    if count and not (ascending and int(places[0]) >= 0 and int(places[-1]) < like.numel()):
        raise PayloadError(
            f"places of '{name}' in channel '{CHANNEL}' are not ascending numbers from 0 to "
            f"{like.numel() - 1}"
        )
    dense = torch.zeros(like.numel(), dtype=like.dtype)
    return dense.index_copy(0, places.long(), values).view(like.shape)
