"""The coefficients of a vector of TenSEAL, out of its bytes and back into them.

TenSEAL writes a message of protocol buffers: 1: sizes, 2: a ciphertext of SEAL, 3: the scale. SEAL
writes 16 bytes (the fifth byte from the end of the first half says how the rest is compressed, the
last eight how long all of it is) and a compressed rest: 97 bytes about the ciphertext, and its
coefficients as words of 64 bits. Only bytes of this process are read here.
"""

from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["coefficients", "vector_bytes"]

_HEAD, _ABOUT, _WORD = 16, 97, 8
_SIZES, _CIPHERTEXT, _SCALE = 0x0A, 0x12, 0x19
_PLAIN, _ZSTD = 0, 2
_MODE = 5


def coefficients(vector: bytes, count: int) -> NDArray[np.uint64]:
    """Of a vector with one ciphertext."""
    _, raw, _ = _parts(vector, count)
    return np.frombuffer(raw, "<u8", count, _ABOUT)


def vector_bytes(like: bytes, row: NDArray[np.uint64]) -> bytes:
    """The bytes of a vector with these coefficients, and all else as in `like`."""
    sizes, raw, scale = _parts(like, len(row))
    body = raw[:_ABOUT] + row.astype("<u8").tobytes()
    head = bytearray(_field(like, _CIPHERTEXT)[:_HEAD])
    head[_MODE] = _PLAIN
    head[_WORD:] = struct.pack("<Q", _HEAD + len(body))
    ciphertext = bytes(head) + body
    return (
        bytes([_SIZES]) + _varint(len(sizes)) + sizes
        + bytes([_CIPHERTEXT]) + _varint(len(ciphertext)) + ciphertext
        + bytes([_SCALE]) + scale
    )  # fmt: skip


def _parts(vector: bytes, count: int) -> tuple[bytes, bytes, bytes]:
    """Sizes, the ciphertext without its head, as it is when not compressed, and the scale."""
    ciphertext, whole = _field(vector, _CIPHERTEXT), _ABOUT + _WORD * count
    raw = ciphertext[_HEAD:]
    if ciphertext[_MODE] == _ZSTD:
        raw = pa.Codec("zstd").decompress(raw, decompressed_size=whole).to_pybytes()
    assert len(raw) == whole, "this version of TenSEAL writes ciphertexts in another way"
    return _field(vector, _SIZES), raw, _field(vector, _SCALE)


def _field(vector: bytes, tag: int) -> bytes:
    at = 0
    while at < len(vector):
        found, at = vector[at], at + 1
        size, at = (8, at) if found == _SCALE else _read_varint(vector, at)
        if found == tag:
            return vector[at : at + size]
        at += size
    raise AssertionError("this version of TenSEAL writes vectors in another way")


def _read_varint(raw: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte, at = raw[at], at + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
