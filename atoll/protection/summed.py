"""What a secure sum adds up: channels as vectors with a range, and back."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from atoll.accounting.grid import Plan
from atoll.core import Channel, Payload, Tree
from atoll.errors import CompositionError
from atoll.noise import derive
from atoll.protection.apart import share
from atoll.secagg import Channel as Range
from atoll.secagg import Configuration, Member, Total, most_bits, tree
from atoll.secagg.channels import restored

__all__ = ["MASKED", "UPDATE", "WORDS", "Summed", "Within", "grid_step", "root_of"]

UPDATE = "update"
MASKED, WORDS = "masked", "words"
"""The one channel, and its one tensor, that leave a client."""


class Within(NamedTuple):
    """vectors: by channel.   outside: how many values of each were larger than its range."""

    vectors: Mapping[str, NDArray[np.float32]]
    outside: Mapping[str, int]


@dataclass(frozen=True)
class Summed:
    """like: the shapes of a reply.   ranges: by channel, the largest value that is told apart.

    A channel that is a mean travels as w·x beside w itself, so that no weight is in the clear.
    undivided: means are left sums.   most: clients of the largest sum, which has the grid of all.
    plan: the grid of the update, to which each client adds a share of noise; None: none does.
    """

    like: Payload
    ranges: Mapping[str, float]
    undivided: bool
    most: int
    plan: Plan | None = None

    def __post_init__(self) -> None:
        for name, channel in self.like.items():
            if channel.reduce != "none" and name not in self.ranges:
                raise CompositionError(
                    f"channel '{name}' has no range under secure aggregation, which adds up whole "
                    "numbers; use an algorithm that sends an update alone, as 'fedavg'"
                )

    def channels(self) -> tuple[Range, ...]:
        """The channels of a sum, each on a grid that is a power of 2."""
        bits = most_bits(self.most)
        top = (1 << bits - 1) - 1
        return tuple(
            Range(name, size, top * self._step(name), bits)
            for name, channel in self._reduced()
            if (size := sum(value.numel() for value in channel.tree.values()))
        )

    def values(self, payload: Payload) -> Within:
        """One client's vectors, cut to their ranges."""
        vectors, outside = dict[str, NDArray[np.float32]](), dict[str, int]()
        for name, channel in self._reduced():
            if channel.tree:
                flat = _flat(payload[name].tree) * np.float32(self._weight(payload, name))
                bound = np.float32(self._bound(name))
                outside[name] = int((np.abs(flat) > bound).sum())
                vectors[name] = np.clip(flat, -bound, bound)
        return Within(vectors, outside)

    def words(
        self, own: Configuration, member: Member, vectors: Mapping[str, NDArray[np.float32]]
    ) -> NDArray[np.int32]:
        """A client's vectors in whole numbers, with its share of the noise in its update."""
        if self.plan is None:
            return member.quantised(own, vectors).words
        update = vectors[UPDATE]
        words = member.quantised(own, {**vectors, UPDATE: np.zeros_like(update)}).words
        part = restored(own.channels, words)[UPDATE]
        # As for noise on single updates: another update, were it asked for, has other noise.
        key = derive(member.noise_seed(own), hashlib.sha256(update.data).hexdigest())
        part[:] = share(self.plan, update, key)
        return words

    def restored(self, total: Total) -> Payload:
        """The aggregate that a sum is."""
        found: Payload = {}
        for name, channel in self._reduced():
            if not channel.tree:
                found[name] = Channel({}, "sum")
                continue
            summed = total.values(name)
            mean = channel.reduce == "mean" and not self.undivided
            if mean:
                weight = self.like[name].weight
                whole = len(total.survivors) if weight is None else float(total.values(weight)[0])
                summed = summed / (whole or 1.0)
            found[name] = Channel(_shaped(summed, channel.tree), "mean" if mean else "sum")
        return found

    def nothing(self) -> Payload:
        """The aggregate of no client."""
        return {
            name: Channel({key: torch.zeros(v.shape, dtype=torch.float64)
                           for key, v in one.tree.items()}, "sum")
            for name, one in self._reduced()
        }  # fmt: skip

    def _reduced(self) -> list[tuple[str, Channel]]:
        return [(name, one) for name, one in sorted(self.like.items()) if one.reduce != "none"]

    def _step(self, name: str) -> float:
        if self.plan is not None and name == UPDATE:
            assert self.plan.sum.asked == self.most, "noise and sums are of the same cohorts"
            return self.plan.spacing
        return grid_step(self._bound(name), self.most)

    def _bound(self, name: str) -> float:
        channel = self.like[name]
        weight = channel.weight if channel.reduce == "mean" else None
        return self.ranges[name] * (1.0 if weight is None else self.ranges[weight])

    def _weight(self, payload: Payload, name: str) -> float:
        channel = self.like[name]
        if channel.reduce != "mean" or channel.weight is None:
            return 1.0
        (value,) = payload[channel.weight].tree.values()
        # One that is larger than its range counts as that: its product must stay within its own.
        return min(float(value), self.ranges[channel.weight])


def grid_step(bound: float, clients: int) -> float:
    """The grid of values up to `bound` in a sum over so many clients: a power of 2, so that sums of
    its multiples are exact."""
    top = (1 << most_bits(clients) - 1) - 1
    return float(2.0 ** math.ceil(math.log2(bound / top)))


def root_of(broadcast: Payload) -> bytes:
    """What stands for all that a client was sent: names, kinds, shapes and values."""
    slices: list[bytes] = []
    for name, channel in sorted(broadcast.items()):
        for key, value in sorted(channel.tree.items()):
            plain = value.detach().cpu().contiguous()
            head = f"{name}\0{key}\0{plain.dtype}\0{tuple(plain.shape)}\0".encode()
            raw = plain.reshape(-1).view(torch.uint8).numpy().tobytes()
            slices.append(head + hashlib.sha256(raw).digest())
    return tree(slices or [b""]).root


def _flat(values: Tree) -> NDArray[np.float32]:
    parts = [values[key].detach().cpu().float().reshape(-1).numpy() for key in sorted(values)]
    return np.concatenate(parts)


def _shaped(flat: NDArray[np.float64], like: Tree) -> Tree:
    found, at = {}, 0
    for key in sorted(like):
        size = like[key].numel()
        found[key] = torch.from_numpy(flat[at : at + size].copy()).view(like[key].shape)
        at += size
    return found
