"""Fixed point against fractions, and its mean against the values themselves."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from Crypto.Cipher import AES
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import PayloadError, ProtocolError
from atoll.secagg import Channel, most_bits, quantise
from atoll.secagg.channels import check_words, restored

SEED = bytes(range(32))


def _coins(count: int, seed: bytes = SEED) -> list[int]:
    cipher = AES.new(seed[:24], AES.MODE_CTR, nonce=seed[24:], initial_value=2)
    return np.frombuffer(cipher.encrypt(bytes(4 * count)), "<u4").tolist()


@pytest.mark.parametrize("clients", [*range(2, 40), 100, 1000, 2**15, 65_536])
def test_bits_leave_room_for_every_sum(clients: int) -> None:
    bits = most_bits(clients)
    assert clients * 2 ** (bits - 1) < 2**31 <= clients * 2**bits
    Channel.fitted("a", 1, 1.0, clients).check(clients)
    with pytest.raises(ProtocolError, match=f"give it at most {bits} bits"):
        Channel("a", 1, 1.0, bits + 1).check(clients)


@pytest.mark.parametrize(
    "channel",
    [Channel("a", 0, 1.0, 8), Channel("a", 1, 0.0, 8), Channel("a", 1, math.inf, 8),
     Channel("a", 1, math.nan, 8), Channel("a", 1, -1.0, 8), Channel("a", 1, 1.0, 1)],
)  # fmt: skip
def test_channels_without_room_or_range_are_refused(channel: Channel) -> None:
    with pytest.raises(ProtocolError, match="channel 'a' has"):
        channel.check(2)


@given(
    st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=50),
    st.integers(2, 30),
    st.sampled_from([1.0, 3.0, 0.25]),
)
@settings(deadline=None, max_examples=80)
def test_rounding_is_the_floor_of_the_value_and_a_coin(
    values: list[float], bits: int, bound: float
) -> None:
    channel = Channel("a", len(values), bound, bits)
    found = quantise([channel], {"a": np.array(values, np.float32)}, SEED)
    outside = 0
    for value, coin, word in zip(values, _coins(len(values)), found.words.tolist(), strict=True):
        outside += abs(value) > bound
        inside = Fraction(min(max(value, -bound), bound))
        exact = inside * channel.top / Fraction(bound)
        # The value in steps is rounded once to 53 bits, before the coin.
        slack = Fraction(1, 2**20)
        low = math.floor(exact + Fraction(coin, 2**32) - slack)
        assert word in (low, math.floor(exact + Fraction(coin, 2**32) + slack))
        assert abs(word - exact) < 1 + slack
        assert -channel.top <= word <= channel.top
    assert found.clamped == {"a": outside}


def test_the_mean_of_roundings_is_the_value() -> None:
    channel = Channel("a", 200_000, 1.0, 6)
    for value in (0.3, -0.71, 0.999, -1.0, 0.0, 1e-3):
        steps = value * channel.top
        words = quantise([channel], {"a": np.full(channel.size, value)}, SEED).words
        fraction = steps - math.floor(steps)
        sd = math.sqrt(fraction * (1 - fraction) / channel.size)
        assert abs(words.mean() - steps) <= 5 * sd + 1e-9
        assert set(words.tolist()) <= {math.floor(steps), math.ceil(steps)}


def test_ends_are_exact_and_what_is_outside_is_clamped_and_counted() -> None:
    channels = [Channel("a", 6, 2.0, 16), Channel("b", 2, 1e-30, 30)]
    values = {
        "a": np.array([2.0, -2.0, 2.1, -np.inf, np.inf, 0.0]),
        "b": np.array([1e-30, -1e-30]),
    }
    for seed in (SEED, b"\xff" * 32, bytes(32)):
        found = quantise(channels, values, seed)
        top, high = 2**15 - 1, 2**29 - 1
        assert found.words.tolist() == [top, -top, top, -top, top, 0, high, -high]
        assert found.clamped == {"a": 3, "b": 0}


@pytest.mark.parametrize("size", [16_383, 16_384, 16_385, 40_000])
def test_chunks_leave_no_seam(size: int) -> None:
    channels = [Channel("a", 5, 1.0, 20), Channel("b", size, 1.0, 20)]
    values = {"a": np.linspace(-1, 1, 5), "b": np.linspace(-1, 1, size)}
    coins = np.array(_coins(5 + size), np.uint64)
    top = 2**19 - 1
    exact = np.concatenate([values["a"], values["b"]]) * (top * 2.0**32)
    expected = (exact.astype(np.int64) + coins.astype(np.int64)) // 2**32
    np.testing.assert_array_equal(quantise(channels, values, SEED).words, expected)


def test_what_is_no_number_or_not_agreed_is_refused() -> None:
    channel = Channel("a", 3, 1.0, 20)
    with pytest.raises(PayloadError, match="channel 'a' holds values that are not numbers"):
        quantise([channel], {"a": np.array([0.0, np.nan, 1.0])}, SEED)
    with pytest.raises(PayloadError, match=r"shape \(2,\), expected \(3,\)"):
        quantise([channel], {"a": np.zeros(2)}, SEED)
    with pytest.raises(PayloadError, match="do not match: b"):
        quantise([channel], {"a": np.zeros(3), "b": np.zeros(1)}, SEED)


def test_words_beyond_their_channel_are_not_masked() -> None:
    channels = [Channel("a", 2, 1.0, 4), Channel("b", 1, 1.0, 8)]
    check_words(channels, np.array([7, -7, 127], np.int32))
    for words in ([8, 0, 0], [0, -8, 0], [0, 0, -128], [0, 0, -(2**31)]):
        with pytest.raises(ProtocolError, match="could overflow"):
            check_words(channels, np.array(words, np.int32))
    for other in (np.zeros(2, np.int32), np.zeros(3, np.int64), np.zeros((3, 1), np.int32)):
        with pytest.raises(ProtocolError, match=r"expected int32\[3\]"):
            check_words(channels, other)
    parts = restored(channels, np.array([1, 2, 3], np.int32))
    assert {name: part.tolist() for name, part in parts.items()} == {"a": [1, 2], "b": [3]}
