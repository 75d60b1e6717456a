"""Coefficients of 54 bits in 7 bytes each, as they travel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atoll.ckks.scheme import COEFFICIENTS, MODULUS
from atoll.errors import ProtocolError

__all__ = ["BYTES", "pack", "reduced", "size_of", "unpack"]

BYTES = 7
"""Of a coefficient."""


def size_of(rows: int) -> int:
    """Bytes of so many ciphertexts."""
    return rows * COEFFICIENTS * BYTES


def pack(coefficients: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """One byte after the other, the lowest of each coefficient first."""
    words = np.ascontiguousarray(coefficients, "<u8").view(np.uint8).reshape(-1, 8)
    return np.ascontiguousarray(words[:, :BYTES]).reshape(-1)


def reduced(total: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The ciphertexts that sums of coefficients are; `total` is used up."""
    return np.remainder(total, np.uint64(MODULUS), out=total)


def unpack(raw: NDArray[np.uint8], rows: int) -> NDArray[np.uint64]:
    """Rows of coefficients.

    Raises:
        ProtocolError: for what is no such number of ciphertexts.
    """
    if raw.dtype != np.uint8 or raw.size != size_of(rows):
        raise ProtocolError(f"{raw.nbytes:,} bytes came, and {size_of(rows):,} were agreed")
    words = np.zeros((rows * COEFFICIENTS, 8), np.uint8)
    words[:, :BYTES] = raw.reshape(-1, BYTES)
    found = words.view("<u8").reshape(rows, COEFFICIENTS)
    if found.size and int(found.max()) >= MODULUS:
        raise ProtocolError("a ciphertext has a coefficient beyond the modulus")
    return found
