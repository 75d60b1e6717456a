"""What arrives is refused unless it is as it was agreed, down to the last bit."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import ProtocolError
from atoll.secagg import Kind, most_bytes
from atoll.secagg.messages import Advert, Survivors, read_each, read_one, write_each, write_one
from tests.support.sums import configured

CONFIGURATION = configured(6, sizes=(5, 2))
OTHER = configured(6, sizes=(5, 2), exchange=8)
ONE = {Kind.ADVERT: 160, Kind.MASKED: 28, Kind.SIGNATURE: 64}
EACH = {
    Kind.ADVERTS: 160, Kind.SHARES: 82, Kind.INBOX: 82, Kind.SIGNATURES: 64, Kind.OPENING: 33,
}  # fmt: skip


def _read(kind: Kind, raw: bytes) -> object:
    if kind == Kind.SURVIVORS:
        return Survivors.from_bytes(raw, CONFIGURATION)
    if kind in ONE:
        return bytes(read_one(kind, CONFIGURATION, raw))
    return read_each(kind, CONFIGURATION, raw)


def _samples() -> dict[Kind, bytes]:
    one = {kind: write_one(kind, CONFIGURATION, bytes(range(size))) for kind, size in ONE.items()}
    each = {
        kind: write_each(kind, CONFIGURATION, {at: bytes([at]) * size for at in (0, 2, 5)})
        for kind, size in EACH.items()
    }
    lists = {Kind.SURVIVORS: Survivors((0, 1, 4), (2, 5)).to_bytes(CONFIGURATION)}
    return {**one, **each, **lists}


SAMPLES = _samples()


def test_every_kind_is_read_as_it_was_written() -> None:
    assert SAMPLES.keys() == set(Kind)
    for kind, size in ONE.items():
        assert _read(kind, SAMPLES[kind]) == bytes(range(size))
    for kind, size in EACH.items():
        assert _read(kind, SAMPLES[kind]) == {at: bytes([at]) * size for at in (0, 2, 5)}
    assert _read(Kind.SURVIVORS, SAMPLES[Kind.SURVIVORS]) == Survivors((0, 1, 4), (2, 5))
    advert = Advert(b"a" * 32, b"b" * 32, b"c" * 32, b"d" * 64)
    assert Advert.from_bytes(advert.to_bytes()) == advert


def test_lengths_are_as_the_module_says() -> None:
    clients, values = 6, 7
    assert {kind: len(SAMPLES[kind]) for kind in ONE} == {
        Kind.ADVERT: 200, Kind.MASKED: 40 + 4 * values, Kind.SIGNATURE: 104,
    }  # fmt: skip
    assert {kind: most_bytes(kind, CONFIGURATION) for kind in Kind} == {
        Kind.ADVERT: 200, Kind.ADVERTS: 40 + 164 * clients, Kind.SHARES: 40 + 86 * (clients - 1),
        Kind.INBOX: 40 + 86 * (clients - 1), Kind.MASKED: 40 + 4 * values,
        Kind.SURVIVORS: 48 + 4 * clients, Kind.SIGNATURE: 104,
        Kind.SIGNATURES: 40 + 68 * clients, Kind.OPENING: 40 + 37 * clients,
    }  # fmt: skip
    assert all(len(raw) <= most_bytes(kind, CONFIGURATION) for kind, raw in SAMPLES.items())
    sparse = replace(CONFIGURATION, neighbours=4, threshold=3)
    assert {kind: most_bytes(kind, sparse) for kind in (Kind.SHARES, Kind.INBOX, Kind.OPENING)} == {
        Kind.SHARES: 40 + 86 * 4, Kind.INBOX: 40 + 86 * 4, Kind.OPENING: 40 + 37 * 5,
    }  # fmt: skip


@pytest.mark.parametrize("kind", Kind)
def test_a_message_is_of_one_kind_and_one_configuration(kind: Kind) -> None:
    for other in set(Kind) - {kind}:
        with pytest.raises(ProtocolError):
            _read(other, SAMPLES[kind])
    patched = SAMPLES[kind][:8] + OTHER.digest + SAMPLES[kind][40:]
    with pytest.raises(ProtocolError, match="bound to the configuration"):
        _read(kind, patched)


@pytest.mark.parametrize("kind", Kind)
def test_every_cut_and_every_byte_more_is_refused_or_another_message(kind: Kind) -> None:
    raw = SAMPLES[kind]
    whole = {40 + EACH[kind] * n + 4 * n for n in range(7)} if kind in EACH else set()
    for size in range(len(raw)):
        if size in whole:
            assert len(_read(kind, raw[:size])) < 3  # type: ignore[arg-type]
            continue
        with pytest.raises(ProtocolError):
            _read(kind, raw[:size])
    with pytest.raises(ProtocolError):
        _read(kind, raw + b"\0")


@pytest.mark.parametrize("kind", EACH)
def test_no_client_twice_none_out_of_order_no_stranger(kind: Kind) -> None:
    size = EACH[kind]
    head = SAMPLES[kind][:40]
    for places in ([1, 1], [2, 1], [0, 0, 0], [6], [0, 2**32 - 1], [0, 1, 2, 3, 4, 5, 5]):
        raw = head + b"".join(at.to_bytes(4, "big") + bytes(size) for at in places)
        with pytest.raises(ProtocolError, match=r"names client|no list of"):
            _read(kind, raw)


def test_lists_of_survivors_name_each_client_once() -> None:
    for alive in ([1, 1, 1], [2, 1], [7], [0, 6]):
        with pytest.raises(ProtocolError, match="names client"):
            _read(Kind.SURVIVORS, Survivors(tuple(alive), ()).to_bytes(CONFIGURATION))
        with pytest.raises(ProtocolError, match="names client"):
            _read(Kind.SURVIVORS, Survivors((0,), tuple(alive)).to_bytes(CONFIGURATION))
    with pytest.raises(ProtocolError, match="lists 7 clients of a cohort of 6"):
        _read(Kind.SURVIVORS, Survivors(tuple(range(7)), ()).to_bytes(CONFIGURATION))
    huge = SAMPLES[Kind.SURVIVORS][:40] + b"\xff" * 4
    with pytest.raises(ProtocolError, match="lists 4294967295 clients"):
        _read(Kind.SURVIVORS, huge)


@given(st.sampled_from(sorted(Kind)), st.binary(max_size=400))
@settings(deadline=None, max_examples=400)
def test_random_bytes_are_refused(kind: Kind, raw: bytes) -> None:
    for content in (raw, SAMPLES[kind][:8] + raw, SAMPLES[kind][:39] + raw):
        if content[:40] != SAMPLES[kind][:40]:
            with pytest.raises(ProtocolError):
                _read(kind, content)


@given(st.sampled_from(sorted(Kind)), st.binary(max_size=700))
@settings(deadline=None, max_examples=600)
def test_what_is_read_is_written_the_same_way(kind: Kind, body: bytes) -> None:
    raw = SAMPLES[kind][:40] + body
    try:
        found = _read(kind, raw)
    except ProtocolError:
        return
    if isinstance(found, Survivors):
        assert found.to_bytes(CONFIGURATION) == raw
    elif isinstance(found, bytes):
        assert write_one(kind, CONFIGURATION, found) == raw
    else:
        assert isinstance(found, dict)
        assert write_each(kind, CONFIGURATION, found) == raw


def test_a_thousand_malformed_messages_take_no_memory() -> None:
    generator = np.random.default_rng(0)
    tracemalloc.start()
    try:
        for number in range(1000):
            kind = list(Kind)[number % len(Kind)]
            raw = bytearray(SAMPLES[kind])
            raw[40:44] = b"\xff" * 4
            raw += generator.bytes(int(generator.integers(1, 50)))
            with pytest.raises(ProtocolError):
                _read(kind, bytes(raw))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_masked_vector_is_read_where_it_lies() -> None:
    raw = SAMPLES[Kind.MASKED]
    assert np.shares_memory(
        np.frombuffer(read_one(Kind.MASKED, CONFIGURATION, raw), np.uint8),
        np.frombuffer(raw, np.uint8),
    )
