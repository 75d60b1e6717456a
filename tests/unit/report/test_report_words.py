"""Numbers and texts for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.report.words import bytes_text, interval_text, legible, number, seconds_text, signed
from atoll.report.words import short as shortened


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.8125, "0.812"), (None, "–"), (0, "0.000"), (0.000123, "0.000123"), (1234.5678, "1,234.568"),
     (-0.5, "-0.500"), (3.2e30, "3.2e+30")],
)  # fmt: skip
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_signs() -> None:
    assert [signed(x) for x in (0.25, -0.25, 0.0, None)] == ["+0.250", "−0.250", "±0.000", "–"]
    assert interval_text((-0.5, 0.25), digits=2, sign=True) == "−0.50 to +0.25"
    assert interval_text(None) == "–"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (3_140_000, "3.1 MB"), (2.5e13, "25.0 TB")],
)
def test_bytes(count: float, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.24, "4.2 s"), (59.9, "59.9 s"), (187, "3:07"), (3723, "1:02:03")]
)
def test_seconds(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


@given(st.text(alphabet=st.characters()))
def test_what_is_legible_can_be_written_and_shows(text: str) -> None:
    found = legible(text)
    found.encode("utf-8")
    assert len(found) == len(text)
    assert found.isascii() or legible(found) == found
    controls = {*map(chr, range(32)), *map(chr, range(127, 160)), "\u202e", "\u2066", "\ufffe"}
    assert not set(found) & (controls - {"\n", "\t"})


def test_legible_text_is_left_alone() -> None:
    text = "Krankenhaus Süd\n日本 🏥 العربية"
    assert legible(text) == text


def test_a_short_text_is_one_line() -> None:
    assert shortened("a\nb  c", 9) == "a b c"
    assert shortened("abcdefghij", 5) == "abcd…"
