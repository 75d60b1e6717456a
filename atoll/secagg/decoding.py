"""A secret among shares of which some are wrong: found where it is known by what it was promised.

Source: Gao, A New Algorithm for Decoding Reed-Solomon Codes (2003): of m shares, all but
(m - threshold) / 2 lie on one polynomial, and the extended Euclidean algorithm gives it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, combinations

from atoll.errors import ProtocolError
from atoll.secagg.shamir import PRIME, combine

__all__ = ["recovered"]

Polynomial = list[int]
"""Coefficients, the constant one first and no zeros last."""
_TRIES = 2_000
"""Sets of shares that are tried one by one, where there are no more."""


def recovered(
    shares: Mapping[int, bytes], threshold: int, right: Callable[[bytes], bool]
) -> tuple[bytes, frozenset[int]] | None:
    """The secret that is right, and the places of shares that are none of it; None: not found.

    shares: `threshold` of them at least. Where the first ones are right, the others are not read.
    """
    first = tuple(sorted(shares))[:threshold]
    for places in chain((first,), _others(shares, threshold)):
        try:
            secret = combine({place: shares[place] for place in places}, threshold)
        except ProtocolError:
            continue  # a wrong share among them, and together they are no secret at all
        if right(secret):
            return secret, frozenset() if places == first else _off(shares, places)
    return None


def _others(shares: Mapping[int, bytes], threshold: int) -> Iterator[tuple[int, ...]]:
    """Sets of shares that may be right: all of them where these are few, else the likeliest one."""
    places = sorted(shares)
    if math.comb(len(places), threshold) <= _TRIES:
        yield from combinations(places, threshold)
        return
    points = _points(shares)
    found = _nearest(points, threshold)
    agreeing = [place for place in places if _at(found, place) == points[place]]
    if len(agreeing) >= threshold:
        yield tuple(agreeing[:threshold])


def _off(shares: Mapping[int, bytes], places: Sequence[int]) -> frozenset[int]:
    """Which shares are not on the polynomial through those at `places`."""
    points = _points(shares)
    through, _ = _interpolated({place: points[place] for place in places})
    return frozenset(place for place, value in points.items() if _at(through, place) != value)


def _points(shares: Mapping[int, bytes]) -> dict[int, int]:
    return {place: int.from_bytes(share, "big") for place, share in shares.items()}


def _nearest(points: Mapping[int, int], threshold: int) -> Polynomial:
    """That of a degree below `threshold` on which most points lie, if there is one."""
    now, before = _interpolated(points)
    factor, other = [1], Polynomial()
    while 2 * (len(now) - 1) >= len(points) + threshold:
        quotient, rest = _divided(before, now)
        before, now = now, rest
        factor, other = _less(other, _times(quotient, factor)), factor
    return _divided(now, factor)[0]


def _interpolated(points: Mapping[int, int]) -> tuple[Polynomial, Polynomial]:
    """The polynomial through all points, by Newton's steps, and one that is 0 at their places."""
    through, zero = Polynomial(), [1]
    for place, value in points.items():
        scale = (value - _at(through, place)) * pow(_at(zero, place), -1, PRIME) % PRIME
        through = _less(through, _times([-scale], zero))
        zero = _times([-place, 1], zero)
    return through, zero


def _at(polynomial: Polynomial, place: int) -> int:
    value = 0
    for coefficient in reversed(polynomial):
        value = (value * place + coefficient) % PRIME
    return value


def _less(one: Polynomial, other: Polynomial) -> Polynomial:
    size = max(len(one), len(other))
    both = zip(one + [0] * (size - len(one)), other + [0] * (size - len(other)), strict=True)
    return _short([(a - b) % PRIME for a, b in both])


def _times(one: Polynomial, other: Polynomial) -> Polynomial:
    found = [0] * (len(one) + len(other))
    for at, a in enumerate(one):
        for beside, b in enumerate(other, at):
            found[beside] = (found[beside] + a * b) % PRIME
    return _short(found)


def _divided(one: Polynomial, other: Polynomial) -> tuple[Polynomial, Polynomial]:
    """Quotient and rest."""
    quotient, rest = [0] * max(len(one) - len(other) + 1, 0), list(one)
    inverse = pow(other[-1], -1, PRIME)
    for at in reversed(range(len(quotient))):
        scale = quotient[at] = rest[at + len(other) - 1] * inverse % PRIME
        for beside, value in enumerate(other, at):
            rest[beside] = (rest[beside] - scale * value) % PRIME
    return _short(quotient), _short(rest)


def _short(polynomial: Polynomial) -> Polynomial:
    while polynomial and not polynomial[-1]:
        polynomial.pop()
    return polynomial
