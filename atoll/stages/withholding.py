"""Channels that stay at the client."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from atoll.core import Context, Payload, Stage, Tree
from atoll.errors import PayloadError

__all__ = ["withhold"]


def withhold(*, channels: Sequence[str] = ("examples", "metrics")) -> Stage:
    """Zeros in the place of every value: neither row counts nor losses leave the client."""
    names = tuple(channels)

    def encode(context: Context, payload: Payload, state: Tree) -> tuple[Payload, Tree]:
        blank = {
            name: channel.with_tree({key: _zero(value) for key, value in channel.tree.items()})
            for name, channel in payload.items()
            if name in names
        }
        return {**payload, **blank}, state

    def decode(context: Context, payload: Payload, like: Payload) -> Payload:
        for name in names:
            if name in payload and any(bool(value.any()) for value in payload[name].tree.values()):
                raise PayloadError(
                    f"channel '{name}' holds values, and none of them may leave its client"
                )
        return payload

    return Stage("withhold", names, encode, decode, lossy=True, blanks=True)


def _zero(value: Tensor) -> Tensor:
    return value.new_zeros(value.shape)
