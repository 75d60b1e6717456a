"""Streams against another library's AES, and sums of them modulo 2**32."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from Crypto.Cipher import AES
from cryptography.hazmat.primitives.ciphers import CipherContext
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.secagg.masks import CHUNK, _by_counter, _by_galois, add_streams, stream

SEEDS = [bytes([number]) * 16 + bytes([255 - number]) * 16 for number in range(5)]


def _words(seed: bytes, count: int) -> np.ndarray:
    cipher = AES.new(seed[:24], AES.MODE_CTR, nonce=seed[24:], initial_value=2)
    return np.frombuffer(cipher.encrypt(bytes(4 * count)), "<u4").astype(np.uint64)


@pytest.mark.parametrize("size", [1, 3, 5, 1000, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 7])
def test_streams_are_aes_in_counter_mode(size: int) -> None:
    start = np.random.default_rng(size).integers(0, 2**32, size, dtype=np.uint64)
    words = start.astype(np.uint32)
    add_streams(words, SEEDS[:3], SEEDS[3:])
    plus = sum(_words(seed, size) for seed in SEEDS[:3])
    minus = sum(_words(seed, size) for seed in SEEDS[3:])
    expected = (start + plus + 2 * np.uint64(2**32) - minus) % np.uint64(2**32)
    np.testing.assert_array_equal(words, expected.astype(np.uint32))


@given(st.integers(1, 3000), st.lists(st.binary(min_size=32, max_size=32), max_size=4))
@settings(deadline=None, max_examples=40)
def test_what_was_added_can_be_taken_off(size: int, seeds: list[bytes]) -> None:
    start = np.arange(size, dtype=np.uint32) * np.uint32(2654435761)
    words = start.copy()
    add_streams(words, seeds)
    add_streams(words, (), seeds[::-1])
    np.testing.assert_array_equal(words, start)


@pytest.mark.parametrize("make", [_by_counter, _by_galois])
def test_either_mode_makes_the_stream_of_galois_counter_mode(
    make: Callable[[bytes], CipherContext],
) -> None:
    for seed in SEEDS:
        cipher = AES.new(seed[:24], AES.MODE_GCM, nonce=seed[24:] + bytes(4))
        zeros, expected = bytes(100_003), cipher.encrypt(bytes(300_009))
        found = make(seed)
        assert b"".join(found.update(zeros) for _ in range(3)) == expected


def test_no_two_seeds_share_a_stream() -> None:
    seeds = [bytes(at) + b"\x01" + bytes(31 - at) for at in range(32)]
    assert len({stream(seed).update(bytes(32)) for seed in seeds}) == 32
