"""Masks: streams of AES in counter mode, added to whole vectors modulo 2³².

A chunk of the vector stays in the cache while every stream is added to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

__all__ = ["CHUNK", "add_streams", "stream"]

CHUNK = 65_536
"""Values that are treated at a time: 256 KiB, of the vector and of a stream."""
_ZEROS = memoryview(bytes(4 * CHUNK))
# The library wants room for one block more than it writes.
_BLOCK = 16


def stream(seed: bytes) -> CipherContext:
    """AES-128 in counter mode; 32 bytes are its key and where the counter begins."""
    return Cipher(algorithms.AES(seed[:16]), modes.CTR(seed[16:])).encryptor()


def add_streams(
    words: NDArray[np.uint32], plus: Sequence[bytes], minus: Sequence[bytes] = ()
) -> None:
    """Add the streams of the seeds `plus` to `words` in place, and take off those of `minus`."""
    added, taken = [stream(seed) for seed in plus], [stream(seed) for seed in minus]
    room = bytearray(4 * min(CHUNK, len(words)) + _BLOCK)
    for at in range(0, len(words), CHUNK):
        chunk = words[at : at + CHUNK]
        zeros, mask = _ZEROS[: chunk.nbytes], np.frombuffer(room, "<u4", len(chunk))
        for each in added:
            each.update_into(zeros, room)
            np.add(chunk, mask, out=chunk)
        for each in taken:
            each.update_into(zeros, room)
            np.subtract(chunk, mask, out=chunk)
