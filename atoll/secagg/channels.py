"""What is summed: named vectors with a declared range, in fixed point that cannot overflow."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import CipherContext
from numpy.typing import NDArray

from atoll.errors import PayloadError, ProtocolError
from atoll.secagg.masks import stream
from atoll.secagg.wire import Reader, blob, number

__all__ = ["Channel", "Quantised", "check_words", "most_bits", "quantise", "restored"]

# Small enough for the second-level cache, with two vectors of 8 bytes and three of 4.
_CHUNK = 32_768


def most_bits(clients: int) -> int:
    """The largest b with clients · 2^(b-1) < 2³¹: a sum of that many stays within 32 bits."""
    return (((1 << 31) - 1) // clients).bit_length()


@dataclass(frozen=True)
class Channel:
    """`size` values from -bound to bound, as integers of `bits` bits with their sign."""

    name: str
    size: int
    bound: float
    bits: int

    @classmethod
    def fitted(cls, name: str, size: int, bound: float, clients: int) -> Channel:
        """On the finest grid that sums over this many clients leave room for."""
        return cls(name, size, bound, most_bits(clients))

    @property
    def top(self) -> int:
        """The integer of `bound`."""
        return (1 << self.bits - 1) - 1

    @property
    def step(self) -> float:
        """The value of one: a sum over n clients is within n steps of the exact one."""
        return self.bound / self.top

    def to_bytes(self) -> bytes:
        """The one way to write it."""
        name, bound = blob(self.name.encode()), struct.pack(">d", self.bound)
        return name + number(self.size, 8) + bound + number(self.bits, 1)

    @classmethod
    def read(cls, reader: Reader) -> Channel:
        """The other way."""
        name, size = reader.text(), reader.number(8)
        bound = float(struct.unpack(">d", reader.take(8))[0])
        return cls(name, size, bound, reader.number(1))

    def check(self, clients: int) -> None:
        """Refuse what could overflow, or has no range.

        Raises:
            ProtocolError: with the channel's name.
        """
        if self.size < 1 or not 0 < self.bound < math.inf or self.bits < 2:
            raise ProtocolError(
                f"channel '{self.name}' has {self.size} values of {self.bits} bits up to "
                f"{self.bound}; it needs a value, 2 bits and a finite range above 0"
            )
        if clients * 2 ** (self.bits - 1) >= 2**31:
            raise ProtocolError(
                f"channel '{self.name}': {clients} clients x 2^{self.bits - 1} could overflow 32 "
                f"bits; give it at most {most_bits(clients)} bits"
            )


@dataclass(frozen=True)
class Quantised:
    """All channels' integers, one after the other, and how many values were outside their range."""

    words: NDArray[np.int32]
    clamped: Mapping[str, int]


def quantise(
    channels: Sequence[Channel], values: Mapping[str, NDArray[np.floating]], seed: bytes
) -> Quantised:
    """Round each value up or down to the grid, so that its mean is the value itself.

    Values outside their range are clamped and counted.
    seed: 32 secret bytes, for this vector only.

    Raises:
        PayloadError: for other channels or sizes than agreed, and values that are not numbers.
    """
    if values.keys() != {channel.name for channel in channels}:
        odd = sorted(values.keys() ^ {channel.name for channel in channels})
        raise PayloadError(f"channels of a secure sum do not match: {', '.join(odd[:3])}")
    words, at = np.empty(sum(channel.size for channel in channels), np.int32), 0
    room, clamped = _Room(stream(seed)), dict[str, int]()
    for channel in channels:
        given = values[channel.name]
        if given.shape != (channel.size,):
            raise PayloadError(
                f"channel '{channel.name}' has shape {given.shape}, expected ({channel.size},)"
            )
        clamped[channel.name] = 0
        for start in range(0, channel.size, _CHUNK):
            part = given[start : start + _CHUNK]
            clamped[channel.name] += room.round(channel, part, words[at : at + len(part)])
            at += len(part)
    return Quantised(words, clamped)


class _Room:
    """What a chunk is rounded in, over and over: memory that is new each time costs more."""

    def __init__(self, coins: CipherContext) -> None:
        self._coins, self._zeros = coins, memoryview(bytes(4 * _CHUNK))
        # The library wants room for one block more than it writes.
        self._drawn = bytearray(4 * _CHUNK + 16)
        self._scaled, self._whole = np.empty(_CHUNK, "<f8"), np.empty(_CHUNK, "<i8")

    def round(self, channel: Channel, values: NDArray[np.floating], out: NDArray[np.int32]) -> int:
        """floor(value / step + u) with u = coins · 2⁻³², in whole numbers of 2⁻³² steps.

        Returns how many values were outside of the range.
        """
        size, limit = len(values), channel.top * 2.0**32
        scaled, whole = self._scaled[:size], self._whole[:size]
        self._coins.update_into(self._zeros[: 4 * size], self._drawn)
        np.copyto(scaled, values)
        scaled *= limit / channel.bound
        outside = _clamped(channel.name, scaled, limit)
        np.copyto(whole, scaled, casting="unsafe")
        whole += np.frombuffer(self._drawn, "<u4", size)
        # The upper half of each is what a shift by 32 leaves.
        np.copyto(out, whole.view("<i4")[1::2])
        return outside


def _clamped(name: str, scaled: NDArray[np.float64], limit: float) -> int:
    """Brings all of them within the limit; returns how many were outside."""
    low, high = scaled.min(), scaled.max()
    # Also false where a value is not a number.
    if -limit <= low and high <= limit:
        return 0
    if np.isnan(low):
        raise PayloadError(f"channel '{name}' holds values that are not numbers; nothing was sent")
    outside = int(np.count_nonzero(np.abs(scaled) > limit))
    np.clip(scaled, -limit, limit, out=scaled)
    return outside


def restored(channels: Sequence[Channel], words: NDArray[np.int32]) -> dict[str, NDArray[np.int32]]:
    """Integers by channel, as views."""
    ends = np.cumsum([channel.size for channel in channels])
    return {
        channel.name: words[end - channel.size : end]
        for channel, end in zip(channels, ends, strict=True)
    }


def check_words(channels: Sequence[Channel], words: NDArray[np.int32]) -> None:
    """Whether these are integers of these channels, one after the other.

    Raises:
        ProtocolError: for another type or number, and for one that lets a sum overflow.
    """
    size = sum(channel.size for channel in channels)
    if words.dtype != np.int32 or words.shape != (size,):
        raise ProtocolError(f"{words.dtype}{list(words.shape)} to mask, expected int32[{size}]")
    parts = restored(channels, words)
    for channel in channels:
        part = parts[channel.name]
        # In pieces that stay in the cache between the two.
        pieces = [part[at : at + _CHUNK] for at in range(0, channel.size, _CHUNK)]
        if any(one.max() > channel.top or one.min() < -channel.top for one in pieces):
            raise ProtocolError(
                f"channel '{channel.name}' holds integers beyond {channel.top}; a sum of them "
                "could overflow, so nothing was masked"
            )
