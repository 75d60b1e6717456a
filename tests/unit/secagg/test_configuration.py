"""One way to write a configuration, and none to promise what it does not keep."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import ConfigError, ProtocolError
from atoll.secagg import Channel, Configuration, Moment, Terms, agree, most_bits
from tests.support.sums import configured

BASE = Configuration(
    Moment("run", 2, 5), tuple("abcdef"), 5, 4, 4, 5,
    (Channel("update", 10, 1.0, 20), Channel("weight", 1, 500.0, 20)),
)  # fmt: skip

OTHERS = {
    "run": replace(BASE, moment=replace(BASE.moment, run="run2")),
    "round": replace(BASE, moment=replace(BASE.moment, round=3)),
    "exchange": replace(BASE, moment=replace(BASE.moment, exchange=6)),
    "attempt": replace(BASE, moment=replace(BASE.moment, attempt=1)),
    "client": replace(BASE, cohort=tuple("abcdeg")),
    "larger cohort": replace(BASE, cohort=tuple("abcdefg"), neighbours=6),
    "neighbours": replace(BASE, neighbours=4),
    "threshold": replace(BASE, threshold=5),
    "signers": replace(BASE, threshold=5, signers=5),
    "floor": replace(BASE, floor=6),
    "fewer channels": replace(BASE, channels=BASE.channels[:1]),
    "order": replace(BASE, channels=BASE.channels[::-1]),
    "name": replace(BASE, channels=(BASE.channels[0], Channel("weighs", 1, 500.0, 20))),
    "size": replace(BASE, channels=(BASE.channels[0], Channel("weight", 2, 500.0, 20))),
    "range": replace(BASE, channels=(BASE.channels[0], Channel("weight", 1, 500.1, 20))),
    "bits": replace(BASE, channels=(BASE.channels[0], Channel("weight", 1, 500.0, 19))),
}


def test_whatever_is_agreed_is_in_the_hash() -> None:
    digests = {BASE.digest, *(other.digest for other in OTHERS.values())}
    assert len(digests) == 1 + len(OTHERS)
    assert BASE.digest == hashlib.sha256(BASE.to_bytes()).digest()


def test_the_bytes_are_those_of_every_version() -> None:
    # Of this text clients on different machines must have the same hash.
    written = (
        b"atoll secagg configuration 1\n" b"\0\0\0\3run" b"\0\0\0\0\0\0\0\2" b"\0\0\0\0\0\0\0\5"
        b"\0\0\0\0" b"\0\0\0\6" b"\0\0\0\1a\0\0\0\1b\0\0\0\1c\0\0\0\1d\0\0\0\1e\0\0\0\1f"
        b"\0\0\0\5\0\0\0\4\0\0\0\4\0\0\0\5" b"\0\0\0\2"
        b"\0\0\0\6update\0\0\0\0\0\0\0\x0a\x3f\xf0\0\0\0\0\0\0\x14"
        b"\0\0\0\6weight\0\0\0\0\0\0\0\1\x40\x7f\x40\0\0\0\0\0\x14"
    )  # fmt: skip
    assert BASE.to_bytes() == written


NAMES = st.text(min_size=1, max_size=8)


@given(
    st.lists(NAMES, min_size=2, max_size=12, unique=True), st.integers(1, 2**40), NAMES,
    st.integers(0, 2**64 - 1),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_it_is_read_as_it_was_written(names: list[str], size: int, run: str, exchange: int) -> None:
    channels = [Channel.fitted("update", size, 0.1, len(names))]
    made = agree(Moment(run, 1, exchange), names[::-1], channels, Terms(0.0, 0.0, floor=2))
    assert made.cohort == tuple(sorted(names))
    again = Configuration.from_bytes(made.to_bytes())
    assert again == made
    assert again.digest == made.digest
    assert [made.place(name) for name in sorted(names)] == list(range(len(names)))


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_no_other_bytes_are_read(data: st.DataObject) -> None:
    raw = BASE.to_bytes()
    changed = bytearray(raw)
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    changed[bit // 8] ^= 1 << bit % 8
    cut = raw[: data.draw(st.integers(0, len(raw) - 1))]
    for wrong in (bytes(changed), cut, raw + b"\0"):
        with contextlib.suppress(ProtocolError):
            assert Configuration.from_bytes(wrong).to_bytes() == wrong != raw
    with pytest.raises(ProtocolError):
        Configuration.from_bytes(cut)


def test_counts_that_are_not_there_take_no_room() -> None:
    raw = BASE.to_bytes()
    at = raw.index(b"\0\0\0\6\0\0\0\1a")
    with pytest.raises(ProtocolError, match="counts 4294967295 parts"):
        Configuration.from_bytes(raw[:at] + b"\xff" * 4 + raw[at + 4 :])


@pytest.mark.parametrize(("change", "message"), [
    ({"cohort": tuple("a")}, "a cohort of 1"),
    ({"cohort": tuple("abcdfe")}, "sorted by name"),
    ({"cohort": tuple("abcdee")}, "name, none twice"),
    ({"threshold": 3}, "a threshold of 3 among 6: it must be more than half"),
    ({"threshold": 7}, "a threshold of 7 among 6"),
    ({"neighbours": 4, "threshold": 2}, "a threshold of 2 among 5"),
    ({"neighbours": 3}, "3 neighbours in a cohort of 6: give an even number below 5"),
    ({"neighbours": 6}, "6 neighbours in a cohort of 6"),
    ({"neighbours": 0}, "0 neighbours"),
    ({"signers": 3}, "3 signers of 6 clients: more than half must sign"),
    ({"signers": 7}, "7 signers of 6 clients"),
    ({"signers": 5}, "a threshold of 4 and 5 signers: two sets of clients could open two"),
    ({"floor": 7}, "smaller than the 7 that must be there"),
    ({"floor": 1}, "must be there at the end"),
    ({"neighbours": 2, "threshold": 2}, "could split off groups of 3, below the floor of 5"),
    ({"channels": ()}, "there must be one"),
    ({"channels": (BASE.channels[0], BASE.channels[0])}, "none twice"),
    ({"channels": (Channel("u", 1, 1.0, 30),)}, "6 clients x 2\\^29 could overflow 32 bits"),
])  # fmt: skip
def test_promises_that_cannot_be_kept_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        replace(BASE, **change)


def test_a_threshold_of_half_is_refused_for_every_degree() -> None:
    for clients in range(3, 9):
        made = configured(clients)
        for neighbours in (*range(2, clients - 1, 2), clients - 1):
            for threshold in range(neighbours + 3):
                good = (neighbours + 1) / 2 < threshold <= neighbours + 1
                if good:
                    replace(made, neighbours=neighbours, threshold=threshold)
                    continue
                with pytest.raises(ProtocolError):
                    replace(made, neighbours=neighbours, threshold=threshold)


def test_agreed_terms_are_in_the_configuration() -> None:
    names = [f"c{number}" for number in range(100)]
    channels = [Channel.fitted("update", 4, 1.0, 100)]
    made = agree(Moment("r", 1, 1), names, channels, Terms(0.2, 0.1, floor=9))
    assert (made.neighbours, made.threshold, made.signers, made.floor) == (32, 21, 61, 9)
    assert made.least == 61
    assert made.channels[0].bits == most_bits(100) == 25
    with pytest.raises(ConfigError, match="needs a cohort of 5"):
        agree(Moment("r", 1, 1), "abcd", channels, Terms(0.0, 0.0))
    with pytest.raises(ProtocolError, match="is not of this cohort"):
        made.place("mallory")
