"""Shares against polynomials and linear systems written out."""

from __future__ import annotations

import contextlib
from itertools import combinations

import pytest
import sympy
from Crypto.Cipher import AES
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import ProtocolError
from atoll.secagg.shamir import PRIME, SHARE, combine, split

SECRET = bytes(range(100, 132))
SEED = bytes(range(32))


def _solved(points: dict[int, int]) -> list[int]:
    """Coefficients of the polynomial through all points, by Gaussian elimination modulo PRIME."""
    rows = [[pow(x, j, PRIME) for j in range(len(points))] + [y] for x, y in points.items()]
    for at in range(len(rows)):
        pivot = next(row for row in rows[at:] if row[at])
        rows.remove(pivot)
        inverse = pow(pivot[at], -1, PRIME)
        pivot = [value * inverse % PRIME for value in pivot]
        rows.insert(at, pivot)
        for other in range(len(rows)):
            if other != at:
                factor = rows[other][at]
                rows[other] = [
                    (a - factor * b) % PRIME for a, b in zip(rows[other], pivot, strict=True)
                ]
    return [row[-1] for row in rows]


def _integers(shares: dict[int, bytes]) -> dict[int, int]:
    return {place: int.from_bytes(share, "big") for place, share in shares.items()}


def test_the_field_is_the_first_that_holds_every_secret() -> None:
    assert sympy.nextprime(2**256) == PRIME
    assert (PRIME - 1).bit_length() <= 8 * SHARE


def test_shares_are_values_of_the_polynomial_that_the_seed_draws() -> None:
    stream = AES.new(SEED, AES.MODE_CTR, nonce=b"", initial_value=0).encrypt(bytes(48 * 3))
    drawn = [int.from_bytes(stream[at : at + 48], "big") for at in (0, 48, 96)]
    shares = _integers(split(SECRET, 4, SEED, [1, 2, 9, 200]))
    for x, value in shares.items():
        a, b, c = drawn
        assert value == (a * x**3 + b * x**2 + c * x + int.from_bytes(SECRET, "big")) % PRIME


@pytest.mark.parametrize("threshold", [1, 2, 3, 5])
def test_every_subset_of_enough_shares_gives_the_secret(threshold: int) -> None:
    shares = split(SECRET, threshold, SEED, [1, 2, 4, 7, 11])
    for places in combinations(shares, threshold):
        some = {place: shares[place] for place in places}
        assert combine(some, threshold) == SECRET
        solved = _solved(_integers(some))
        assert solved[0] == int.from_bytes(SECRET, "big")
        assert len(solved) == threshold


def test_fewer_shares_fit_every_secret_equally() -> None:
    few = _integers(split(SECRET, 4, SEED, [1, 2, 3]))
    for secret in (0, 1, 12345, 2**256 - 1):
        polynomial = _solved({**few, 0: secret})
        assert len(polynomial) == 4
        assert all(
            sum(c * x**j for j, c in enumerate(polynomial)) % PRIME == y for x, y in few.items()
        )
    with pytest.raises(ProtocolError, match="3 shares of a secret, and 4 are needed"):
        combine(split(SECRET, 4, SEED, [1, 2, 3]), 4)


@given(st.binary(min_size=32, max_size=32), st.integers(1, 12), st.data())
@settings(deadline=None, max_examples=60)
def test_any_secret_from_any_places(secret: bytes, threshold: int, data: st.DataObject) -> None:
    places = data.draw(
        st.lists(st.integers(1, 70_000), min_size=threshold, max_size=20, unique=True)
    )
    shares = split(secret, threshold, SEED, places)
    chosen = data.draw(st.permutations(places))[:threshold]
    assert combine({place: shares[place] for place in chosen}, threshold) == secret


def test_the_same_seed_gives_the_same_shares_and_another_one_others() -> None:
    assert split(SECRET, 3, SEED, [1, 2, 3]) == split(SECRET, 3, SEED, [1, 2, 3])
    others = split(SECRET, 3, bytes(32), [1, 2, 3])
    assert all(others[at] != share for at, share in split(SECRET, 3, SEED, [1, 2, 3]).items())


def test_a_wrong_share_never_gives_the_secret() -> None:
    shares = split(SECRET, 3, SEED, [1, 2, 3])
    for place in shares:
        for change in (1, 2**255, PRIME - 5):
            value = (int.from_bytes(shares[place], "big") + change) % PRIME
            wrong = {**shares, place: value.to_bytes(SHARE, "big")}
            with contextlib.suppress(ProtocolError):
                assert combine(wrong, 3) != SECRET
    with pytest.raises(ProtocolError, match="belong to no secret"):
        combine({**shares, 1: b"\xff" * SHARE}, 3)


def test_a_value_between_the_secrets_and_the_prime_is_none() -> None:
    shares = {place: (2**256 + 100).to_bytes(SHARE, "big") for place in (1, 2)}
    with pytest.raises(ProtocolError, match="belong to no secret"):
        combine(shares, 2)
