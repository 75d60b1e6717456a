"""Addressed randomness: every draw of training has an address, and nothing is seeded globally.

Privacy randomness (noise, masks, private cohorts) never comes from here.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

__all__ = ["derive", "generator", "numpy_generator"]


def derive(seed: int, *address: str | int) -> int:
    """A 63-bit seed; parts are length-prefixed, so that ("ab",) differs from ("a", "b")."""
    digest = hashlib.blake2b(digest_size=8)
    for part in (seed, *address):
        kind = "i" if isinstance(part, int) else "s"
        text = str(part).encode()
        digest.update(f"{kind}{len(text)}:".encode() + text)
    return int.from_bytes(digest.digest(), "little") >> 1


def generator(seed: int, *address: str | int) -> torch.Generator:
    """A fresh CPU generator, e.g. `generator(seed, "dropout", round, client, step)`."""
    return torch.Generator().manual_seed(derive(seed, *address))


def numpy_generator(seed: int, *address: str | int) -> np.random.Generator:
    """The same address space for numpy's samplers."""
    return np.random.default_rng(derive(seed, *address))
