"""Reading what a client sent, which may be anything."""

from __future__ import annotations

import torch

from atoll.core import Payload, Tree
from atoll.errors import PayloadError

__all__ = ["agreed_dtype", "describe", "received"]


def received(payload: Payload, channel: str) -> Tree:
    """The tree of one channel.

    Raises:
        PayloadError: it was not sent.
    """
    if channel not in payload:
        raise PayloadError(f"channel '{channel}' is missing; sent: {', '.join(sorted(payload))}")
    return payload[channel].tree


def agreed_dtype(name: str, channel: str, like: Tree) -> torch.dtype:
    """The dtype that `name` had before it was packed.

    Raises:
        PayloadError: nobody asked for a tensor of this name.
    """
    if name not in like:
        raise PayloadError(f"'{name}' of channel '{channel}' was not asked for")
    return like[name].dtype


def describe(value: torch.Tensor | None) -> str:
    """`float32[2, 3]`, or `missing`."""
    if value is None:
        return "missing"
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
