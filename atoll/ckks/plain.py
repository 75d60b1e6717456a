"""The numbers of an encrypted sum: where they stand, how large they may be, and noise."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from atoll.ckks.agreed import Agreed
from atoll.ckks.scheme import SLOTS
from atoll.errors import ProtocolError
from atoll.noise import Stream, standard_normal

__all__ = ["SMUDGING", "STEP", "check_range", "in_rows", "smudged"]

STEP = 2.0**-26
"""The value of one in a decrypted sum, in units of a channel's range: 20 of them fit 32 bits."""
SMUDGING = 2.0**-24
"""Deviation of the noise on a decrypted sum, in the same unit."""
CLOSE = 1e-8
"""How far beyond its range a sum may be: decryption errs by 1e-9 at most."""


def in_rows(agreed: Agreed, flat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values as rows of ciphertexts; zeros fill the last one."""
    rows = np.zeros(agreed.rows * SLOTS)
    rows[: len(flat)] = flat
    return rows.reshape(agreed.rows, SLOTS)


def check_range(found: NDArray[np.float64], clients: int) -> None:
    """Refuse what is beyond the largest sum of so many clients.

    Raises:
        ProtocolError: and nothing of it is told.
    """
    if not np.abs(found).max() <= clients + CLOSE:
        raise ProtocolError(
            "what was decrypted is no sum of values within their range: a client did not encrypt "
            "as agreed"
        )


def smudged(values: NDArray[np.float64]) -> NDArray[np.int32]:
    """The sum in whole steps, with fresh noise: an exact decryption would tell the error of its
    ciphertext, and that the key (Li, Micciancio, EUROCRYPT 2021)."""
    noise = standard_normal(Stream(os.urandom(32), "smudging"), values.shape).numpy()
    found: NDArray[np.int32] = np.rint((values + SMUDGING * noise) / STEP).astype(np.int32)
    return found
