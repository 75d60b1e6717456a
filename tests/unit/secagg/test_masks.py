"""Streams against another library's AES, and sums of them modulo 2**32."""

from __future__ import annotations

import numpy as np
import pytest
from Crypto.Cipher import AES
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.secagg.masks import CHUNK, add_streams

SEEDS = [bytes([number]) * 16 + bytes([255 - number]) * 16 for number in range(5)]


def _words(seed: bytes, count: int) -> np.ndarray:
    cipher = AES.new(seed[:16], AES.MODE_CTR, nonce=b"", initial_value=seed[16:])
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


def test_a_counter_that_runs_over_goes_on_at_zero() -> None:
    seed = bytes(16) + b"\xff" * 16
    words = np.zeros(8, np.uint32)
    add_streams(words, [seed])
    block = AES.new(bytes(16), AES.MODE_ECB)
    expected = block.encrypt(b"\xff" * 16) + block.encrypt(bytes(16))
    assert words.astype("<u4").tobytes() == expected
