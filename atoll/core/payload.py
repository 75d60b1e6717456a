"""What travels: named channels of named tensors, checked whole before any of it is used."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from atoll.errors import PayloadError
from atoll.tree import Tree, all_finite, nbytes

__all__ = ["Channel", "Payload", "faded", "metrics_of", "payload_nbytes", "validate"]


@dataclass(frozen=True)
class Channel:
    """A tree, and what the server may do with it.

    reduce: `mean` (weighted by the one number of channel `weight`; plain when that is None), `sum`,
        or `none` (read per client, never aggregated).
    l2: the bound that the sender guarantees on the L2 norm.
    """

    tree: Tree
    reduce: Literal["mean", "sum", "none"] = "mean"
    weight: str | None = None
    l2: float | None = None

    def with_tree(self, tree: Tree) -> Channel:
        """The same channel carrying other values."""
        return replace(self, tree=tree)


Payload = dict[str, Channel]


def payload_nbytes(payload: Payload) -> int:
    """Bytes of the values that travel."""
    return sum(nbytes(channel.tree) for channel in payload.values())


def metrics_of(payload: Payload) -> dict[str, float]:
    """The numbers of channel `metrics`; those of a vector are name.0, name.1, …"""
    numbers: dict[str, float] = {}
    for name, value in payload["metrics"].tree.items() if "metrics" in payload else ():
        keys = [name] if value.dim() == 0 else [f"{name}.{i}" for i in range(value.numel())]
        numbers |= zip(keys, value.reshape(-1).tolist(), strict=True)
    return numbers


def faded(payload: Payload, factor: float) -> Payload:
    """The payload with means that weigh `factor` of what they did, and the rest as it is."""
    weights = {channel.weight for channel in payload.values() if channel.reduce == "mean"}
    return {
        name: channel.with_tree({key: value * factor for key, value in channel.tree.items()})
        if name in weights and factor != 1
        else channel
        for name, channel in payload.items()
    }


def validate(payload: Payload, like: Payload) -> None:
    """Check a whole decoded payload before any of it is used.

    Raises:
        PayloadError: on a name, shape, dtype, value or kind of sum that was not agreed.
    """
    for kind, got, want in [("channels", payload, like)] + [
        (f"tensors of channel '{name}'", payload[name].tree, like[name].tree)
        for name in payload.keys() & like.keys()
    ]:
        if got.keys() != want.keys():
            odd = sorted(got.keys() ^ want.keys())
            raise PayloadError(f"{kind} do not match what was asked for: {', '.join(odd[:3])}")
    for name, channel in payload.items():
        for key, value in channel.tree.items():
            want_value = like[name].tree[key]
            if value.shape != want_value.shape or value.dtype != want_value.dtype:
                raise PayloadError(
                    f"'{key}' of channel '{name}' is {_describe(value)}, "
                    f"expected {_describe(want_value)}"
                )
        if not all_finite(channel.tree):
            raise PayloadError(f"channel '{name}' holds values that are not finite")
    _validate_reduction(payload, like)


def _validate_reduction(payload: Payload, like: Payload) -> None:
    for name, channel in payload.items():
        got, want = _reduction(channel), _reduction(like[name])
        if got != want:
            raise PayloadError(f"channel '{name}' asks for {got}, expected {want}")
        if channel.reduce != "mean" or channel.weight is None:
            continue
        weights = list(payload[channel.weight].tree.values()) if channel.weight in payload else []
        if len(weights) != 1 or weights[0].numel() != 1 or float(weights[0]) < 0:
            raise PayloadError(
                f"channel '{channel.weight}' weighs '{name}': it must hold one number that is not "
                "negative"
            )


def _reduction(channel: Channel) -> str:
    weighted = channel.reduce == "mean" and channel.weight is not None
    return f"{channel.reduce} weighted by {channel.weight}" if weighted else channel.reduce


def _describe(value: torch.Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
