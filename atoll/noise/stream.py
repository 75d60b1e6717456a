"""A stream of secret bits: AES-256 in counter mode, under a key of its own for each address."""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

__all__ = ["KEY", "Stream", "derive"]

KEY = 32
"""Bytes of a key."""


def derive(key: bytes, *address: str | int) -> bytes:
    """A key that tells nothing of `key` or of those at other addresses (HKDF, RFC 5869).

    Parts of an address are length-prefixed, so that ("ab",) differs from ("a", "b").
    """
    assert len(key) == KEY, "a key has 32 bytes"
    info = b"atoll noise"
    for part in address:
        text = str(part).encode()
        info += f"{'i' if isinstance(part, int) else 's'}{len(text)}:".encode() + text
    return HKDF(SHA256(), KEY, salt=None, info=info).derive(key)


class Stream:
    """Bits at one address under a secret key; each draw goes on where the last one ended."""

    def __init__(self, key: bytes, *address: str | int) -> None:
        own = derive(key, *address)
        # A key is used for one stream, so that the counter may start at zero.
        self._cipher = Cipher(algorithms.AES(own), modes.CTR(bytes(16))).encryptor()

    def words(self, count: int) -> NDArray[np.uint64]:
        """Uniform 64-bit words."""
        return np.frombuffer(self._cipher.update(bytes(8 * count)), np.uint64)

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Uniform in (0, 1), on a grid of 2⁻⁵³ that leaves out both ends."""
        high = (self.words(count) >> np.uint64(11)).astype(np.float64)
        high += 0.5
        high *= 2.0**-53
        return high

    def coins(self, probability: float, count: int) -> NDArray[np.bool_]:
        """Independent flips, true with `probability` (to 2⁻⁵³)."""
        return self.uniform(count) < probability
