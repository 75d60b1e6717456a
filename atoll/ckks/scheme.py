"""CKKS as sums need it: encrypt, add, decrypt, on one modulus (Cheon, Kim, Kim, Song 2017).

A ciphertext is two polynomials modulo a prime of 54 bits, and holds 2,048 real numbers from -1 to
1. Adding two is adding their coefficients: a server needs numpy for that, and no key. 4,096
coefficients and 108 bits of moduli are within the table of the homomorphic encryption standard for
128 bits of security (109).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.ckks.library import library
from atoll.ckks.seal_bytes import coefficients, vector_bytes
from atoll.errors import ProtocolError

__all__ = [
    "COEFFICIENTS",
    "MODULUS",
    "MOST_CLIENTS",
    "MOST_CONTEXT",
    "SLOTS",
    "decrypted",
    "encrypted",
    "new_context",
    "private_bytes",
    "private_context",
    "public_bytes",
    "public_context",
]

DEGREE, BITS = 4096, (54, 54)
SLOTS = DEGREE // 2
"""Numbers in a ciphertext."""
COEFFICIENTS = 2 * DEGREE
"""Of its two polynomials."""
MODULUS = 18014398509293569
"""The prime of a ciphertext: the second largest one below 2⁵⁴ that is 1 modulo 8,192."""
SCALE = 2.0**47
MOST_CLIENTS = 20
"""20 numbers up to 1, at the scale, stay below half of the modulus: 2^51.4 against 2^53."""
MOST_CONTEXT = 8 * 4 * DEGREE + 1024
"""Bytes of a public context: a key of four polynomials, and the parameters."""


def new_context() -> Any:
    """Fresh keys, from the library's generator, which is seeded by the operating system."""
    found = library()
    context = found.context(
        found.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=list(BITS), n_threads=1
    )
    context.global_scale = SCALE
    return context


def public_bytes(context: Any) -> bytes:
    """What encrypts, and cannot decrypt."""
    return _written(context, public=True, secret=False)


def private_bytes(context: Any) -> bytes:
    """With the secret key."""
    return _written(context, public=True, secret=True)


def private_context(raw: bytes) -> Any:
    """The holder's own, as it kept it."""
    return library().context_from(raw, n_threads=1)


def public_context(raw: bytes) -> Any:
    """Of another machine.

    Raises:
        ProtocolError: for other parameters than those agreed, no public key, or a secret one.
    """
    found = _read(raw)
    if _written(found, public=False, secret=False) != _parameters():
        raise ProtocolError("the holder's key has other parameters than those agreed")
    if found.has_secret_key() or not found.has_public_key():
        raise ProtocolError("the holder's key must be a public one, without its secret")
    return found


def encrypted(context: Any, rows: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Rows of `SLOTS` numbers from -1 to 1 -> rows of `COEFFICIENTS`."""
    assert rows.shape[1] == SLOTS
    assert float(np.abs(rows).max(initial=0.0)) <= 1
    vectors = (library().ckks_vector(context, row.tolist()) for row in rows)
    return np.stack([coefficients(vector.serialize(), COEFFICIENTS) for vector in vectors])


def decrypted(context: Any, rows: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Rows of coefficients -> rows of numbers, with an error of about 1e-11 for each client."""
    # What a ciphertext says of itself beside its coefficients is taken from one of the holder's.
    like = library().ckks_vector(context, [0.0] * SLOTS).serialize()
    found = [library().ckks_vector_from(context, vector_bytes(like, row)).decrypt() for row in rows]
    return np.asarray(found, np.float64)


@cache
def _parameters() -> bytes:
    # They are written one way alone.
    return _written(new_context(), public=False, secret=False)


def _written(context: Any, *, public: bool, secret: bool) -> bytes:
    written: bytes = context.serialize(
        save_public_key=public, save_secret_key=secret,
        save_galois_keys=False, save_relin_keys=False,
    )  # fmt: skip
    return written


def _read(raw: bytes) -> Any:
    if len(raw) > MOST_CONTEXT:
        raise ProtocolError(
            f"the holder's key has {len(raw):,} bytes, and one has {MOST_CONTEXT:,} at most"
        )
    try:
        return library().context_from(raw, n_threads=1)
    except (ValueError, RuntimeError, TypeError) as error:
        raise ProtocolError(f"the holder's key cannot be read: {error}") from None
