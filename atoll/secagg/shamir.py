"""Shares of a secret: any `threshold` of them give it back, fewer say nothing of it.

Source: Shamir, How to Share a Secret (CACM 22(11), 1979), over GF(p) with p = 2²⁵⁶ + 297, the
smallest prime above 2²⁵⁶: every secret of 32 bytes is an element. Python's integers do not take
constant time; shares are made and combined where the secret already is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from atoll.errors import ProtocolError
from atoll.secagg.keys import KEY

__all__ = ["PRIME", "SHARE", "combine", "split"]

PRIME = 2**256 + 297
SHARE = 33
"""Bytes of a share: an element of the field, big-endian."""
# 128 bits more than the field: reduced, they are uniform to 2⁻¹²⁸.
_WIDE = 48


def split(secret: bytes, threshold: int, seed: bytes, places: Sequence[int]) -> dict[int, bytes]:
    """A share for each place (1, 2, …); the same for the same `seed`, which serves one secret.

    secret: 32 bytes.   seed: 32 bytes that nobody else knows.
    """
    assert len(secret) == KEY, "a secret has 32 bytes"
    assert all(0 < place < PRIME for place in places)
    stream = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
    raw = stream.update(bytes(_WIDE * (threshold - 1)))
    coefficients = [
        int.from_bytes(raw[at : at + _WIDE], "big") % PRIME for at in range(0, len(raw), _WIDE)
    ]
    coefficients.append(int.from_bytes(secret, "big"))
    return {place: _value(coefficients, place).to_bytes(SHARE, "big") for place in places}


def _value(coefficients: Sequence[int], at: int) -> int:
    """Of the polynomial whose highest coefficient is first."""
    value = 0
    # Places are small: one reduction at the end is less work than one for each coefficient.
    for coefficient in coefficients:
        value = value * at + coefficient
    return value % PRIME


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret, from the first `threshold` shares by place.

    Raises:
        ProtocolError: when they are too few, or not shares of one secret.
    """
    if len(shares) < threshold:
        raise ProtocolError(
            f"{len(shares)} shares of a secret, and {threshold} are needed; the exchange ends here"
        )
    places = tuple(sorted(shares))[:threshold]
    values = [int.from_bytes(shares[place], "big") for place in places]
    products = (a * b for a, b in zip(values, _lagrange(places), strict=True))
    secret = sum(products) % PRIME
    if secret >> 256 or max(values) >= PRIME:
        raise ProtocolError(
            "shares that belong to no secret of 32 bytes; a client sent a wrong one"
        )
    return secret.to_bytes(KEY, "big")


@lru_cache(maxsize=256)
def _lagrange(places: tuple[int, ...]) -> tuple[int, ...]:
    """Weights of the values at `places` in the value at 0: prod x_j / (x_j - x_i) over j ≠ i.

    One inversion for all: that of the product of the denominators (Montgomery's trick).
    """
    below = []
    for own in places:
        product = own
        for other in places:
            if other != own:
                product = product * (other - own) % PRIME
        below.append(product)
    before = list(accumulate(below, lambda a, b: a * b % PRIME, initial=1))
    all_places = 1
    for place in places:
        all_places = all_places * place % PRIME
    weights, rest = [], all_places * pow(before[-1], -1, PRIME) % PRIME
    for ahead, own in zip(reversed(before[:-1]), reversed(below), strict=True):
        weights.append(rest * ahead % PRIME)
        rest = rest * own % PRIME
    return tuple(reversed(weights))
