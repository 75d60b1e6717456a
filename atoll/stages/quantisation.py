"""Fewer bits for each value, without bias."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Generator, Tensor

from atoll import rng
from atoll.core import Context, Payload, Stage, Tree
from atoll.errors import ConfigError, PayloadError
from atoll.stages.received import agreed_dtype, describe, received

__all__ = ["quantise"]

# No torch module puts a colon into the name of a parameter.
SCALE = ":scale"


def quantise(*, dtype: Literal["int8", "bfloat16"], channels: Sequence[str] = ("update",)) -> Stage:
    """Round every floating value to one of its two neighbours in `dtype`, at random, so that
    E[decoded] = value.

    int8 has one scale per tensor, max|x| / 127, which travels beside the values as `<name>:scale`.
    Rounding can lengthen a tree, so that no bound is known afterwards.
    Source: Alistarh, Grubic, Li, Tomioka, Vojnović, QSGD (NeurIPS 2017, arXiv 1610.02132),
    section 3.1, with max|x| in the place of ‖x‖₂.
    """
    if dtype not in ("int8", "bfloat16"):
        raise ConfigError(f"stage 'quantise': dtype is '{dtype}'; valid: int8, bfloat16")
    pack, unpack = (_to_int8, _from_int8) if dtype == "int8" else (_to_bf16, _from_bf16)
    names = tuple(channels)

    def encode(context: Context, payload: Payload, state: Tree) -> tuple[Payload, Tree]:
        generator = rng.generator(
            context.seed, "quantise", context.round, context.exchange, context.client
        )
        packed = dict(payload)
        for name in names:
            tree = _packed(payload[name].tree, generator, pack)
            packed[name] = replace(payload[name], tree=tree, l2=None)
        return packed, state

    def decode(context: Context, payload: Payload, like: Payload) -> Payload:
        unpacked = dict(payload)
        for name in names:
            tree = unpack(name, received(payload, name), like[name].tree)
            unpacked[name] = payload[name].with_tree(tree)
        return unpacked

    return Stage("quantise", names, encode, decode, bound=lambda met: None, packs=True, lossy=True)


def _packed(tree: Tree, generator: Generator, pack: Callable[..., Tree]) -> Tree:
    packed: Tree = {}
    # Sorted, because a tree that came through a file has another order and the same values.
    for name in sorted(tree):
        value = tree[name]
        if not value.is_floating_point():
            packed[name] = value
            continue
        narrow = value.float()
        if not bool(torch.isfinite(narrow).all()):
            raise PayloadError(
                f"'{name}' holds values that are not finite in float32; none can be rounded"
            )
        packed.update(pack(name, narrow, generator))
    return packed


def _to_int8(name: str, value: Tensor, generator: Generator) -> Tree:
    peak = value.abs().max() if value.numel() else value.new_zeros(())
    # The floor keeps an all-zero tensor, and one of subnormal numbers, away from 0 / 0.
    scale = (peak / 127).clamp(min=torch.finfo(torch.float32).tiny)
    exact = (value / scale).clamp(-127, 127)
    below = exact.floor()
    up = torch.rand(value.shape, generator=generator) < exact - below
    return {name: (below + up).to(torch.int8), f"{name}{SCALE}": scale}


def _from_int8(channel: str, tree: Tree, like: Tree) -> Tree:
    values: Tree = {}
    scales = {f"{name}{SCALE}" for name, value in tree.items() if value.dtype == torch.int8}
    for name, value in tree.items():
        if name in scales:
            continue
        if value.dtype == torch.int8:
            dtype = agreed_dtype(name, channel, like)
            scale = _checked_scale(name, channel, tree.get(f"{name}{SCALE}"))
            values[name] = (value * scale).to(dtype)
        elif value.is_floating_point():
            raise PayloadError(
                f"'{name}' of channel '{channel}' is {describe(value)}, expected int8 and a scale"
            )
        else:
            values[name] = value
    return values


def _checked_scale(name: str, channel: str, scale: Tensor | None) -> Tensor:
    if scale is None or scale.dtype != torch.float32 or scale.shape != ():
        raise PayloadError(
            f"the scale of '{name}' in channel '{channel}' is {describe(scale)}, expected float32[]"
        )
    if not 0 <= float(scale) < float("inf"):
        raise PayloadError(
            f"the scale of '{name}' in channel '{channel}' is {float(scale)}, expected a finite "
            "number that is not negative"
        )
    return scale


def _to_bf16(name: str, value: Tensor, generator: Generator) -> Tree:
    # bfloat16 is the upper half of float32: adding 16 random bits carries into it with the
    # probability that the lower half asks for, whatever the sign and the exponent.
    bits = value.contiguous().view(torch.int32)
    noise = torch.randint(1 << 16, value.shape, generator=generator, dtype=torch.int32)
    largest = torch.finfo(torch.bfloat16).max
    rounded = ((bits + noise) & -(1 << 16)).view(torch.float32).clamp(-largest, largest)
    return {name: rounded.to(torch.bfloat16)}


def _from_bf16(channel: str, tree: Tree, like: Tree) -> Tree:
    values: Tree = {}
    for name, value in tree.items():
        if value.is_floating_point() and value.dtype != torch.bfloat16:
            raise PayloadError(
                f"'{name}' of channel '{channel}' is {describe(value)}, expected bfloat16"
            )
        floats = value.is_floating_point()
        values[name] = value.to(agreed_dtype(name, channel, like)) if floats else value
    return values
