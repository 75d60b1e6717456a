"""The numbers of an encrypted sum: where they stand, what proves whose they are, and noise."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from atoll.ckks.agreed import TAGS, Agreed
from atoll.ckks.scheme import SLOTS
from atoll.errors import ProtocolError
from atoll.noise import Stream, standard_normal
from atoll.secagg.keys import derive

__all__ = ["SMUDGING", "STEP", "check_sum", "in_rows", "smudged", "tags"]

STEP = 2.0**-26
"""The value of one in a decrypted sum, in units of a channel's range: 20 of them fit 32 bits."""
SMUDGING = 2.0**-24
"""Deviation of the noise on a decrypted sum, in the same unit."""
CLOSE = 1e-8
"""How far from what clients promised a proof may be: decryption errs by 1e-9 at most."""


def in_rows(agreed: Agreed, flat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values as rows of ciphertexts, behind room for their tags; zeros fill the last one."""
    rows = np.zeros((agreed.rows, SLOTS))
    padded = np.zeros(agreed.rows * (SLOTS - TAGS))
    padded[: len(flat)] = flat
    rows[:, TAGS:] = padded.reshape(agreed.rows, -1)
    return rows


def tags(agreed: Agreed, shared: bytes, key: bytes) -> NDArray[np.float64]:
    """Numbers from -1 to 1, in every ciphertext, that a client and the holder alone can know.

    A server that leaves a client out of a part, counts it twice, or puts one of its own in its
    place would have to know them: it can only add.
    """
    seed = derive(shared, "encrypted sum tags", agreed.digest + key)
    drawn = Stream(seed, "tags").uniform(agreed.rows * TAGS)
    return (2 * drawn - 1).reshape(agreed.rows, TAGS)


def check_sum(found: NDArray[np.float64], expected: NDArray[np.float64], clients: int) -> None:
    """Refuse what is not the sum of these clients' ciphertexts, each of them once.

    Raises:
        ProtocolError: and nothing of it is told.
    """
    gap = np.abs(found[:, :TAGS] - expected).max()
    if not gap <= CLOSE or not np.abs(found).max() <= clients + CLOSE:
        raise ProtocolError(
            "what was to be decrypted is not the sum of what these clients sent, each of them "
            "once: the server changed it, or a client did not encrypt as agreed"
        )


def smudged(values: NDArray[np.float64]) -> NDArray[np.int32]:
    """The sum in whole steps, with fresh noise: an exact decryption would tell the error of its
    ciphertext, and that the key (Li, Micciancio, EUROCRYPT 2021)."""
    noise = standard_normal(Stream(os.urandom(32), "smudging"), values.shape).numpy()
    found: NDArray[np.int32] = np.rint((values + SMUDGING * noise) / STEP).astype(np.int32)
    return found
