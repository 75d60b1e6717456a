"""Masks: streams of AES in counter mode, added to whole vectors modulo 2³².

A chunk of the vector stays in the cache while every stream is added to it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache

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
    """AES-192 in counter mode: of 32 secret bytes 24 are the key and 8 the nonce.

    Blocks count from 2, so that these are the bits that AES-GCM encrypts with (NIST SP 800-38D,
    algorithm 4), and either mode makes them, whichever is faster on this processor.
    """
    return (_by_galois if _galois_is_faster() else _by_counter)(seed)


def _by_counter(seed: bytes) -> CipherContext:
    start = seed[24:] + (2).to_bytes(8, "big")
    return Cipher(algorithms.AES(seed[:24]), modes.CTR(start)).encryptor()


def _by_galois(seed: bytes) -> CipherContext:
    """The library's vectors of four blocks are for this mode alone; its tag is never asked for."""
    return Cipher(algorithms.AES(seed[:24]), modes.GCM(seed[24:] + bytes(4))).encryptor()


@cache
def _galois_is_faster() -> bool:
    """Twice as fast where a processor has such vectors, half as fast where it has none."""
    room, spent = bytearray(4 * CHUNK + _BLOCK), []
    for make in (_by_counter, _by_galois):
        cipher, found = make(bytes(32)), []
        for _ in range(5):
            start = time.perf_counter()
            cipher.update_into(_ZEROS, room)
            found.append(time.perf_counter() - start)
        spent.append(min(found))
    return spent[1] < spent[0]


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
