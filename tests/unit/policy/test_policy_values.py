"""Sizes and hours as people write them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.policy.values import minutes, next_opening, opened, size

UNITS = {"B": 0, "kB": 3, "MB": 6, "GB": 9, "TB": 12}
BINARY = {"KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("64MB", 64_000_000), ("1GB", 10**9), ("1.5 gb", 1_500_000_000), ("512KiB", 524_288),
     ("7", 7), ("1.9B", 1), ("0.5kb", 500)],
)  # fmt: skip
def test_a_size(text: str, expected: int) -> None:
    assert size(text) == expected


@given(st.integers(0, 10**9), st.integers(0, 999), st.sampled_from(sorted(UNITS)))
def test_decimal_units_are_powers_of_ten(whole: int, thousandths: int, unit: str) -> None:
    number = Decimal(f"{whole}.{thousandths:03}")
    assert size(f"{number}{unit}") == int(number.scaleb(UNITS[unit]))


@given(st.integers(0, 2**20), st.sampled_from(sorted(BINARY)))
def test_binary_units_are_powers_of_two(whole: int, unit: str) -> None:
    assert size(f"{whole} {unit}") == whole << BINARY[unit]


@given(st.text())
def test_any_text_is_a_size_or_refused(text: str) -> None:
    try:
        found = size(text)
    except ValueError:
        return
    assert found >= 0


@pytest.mark.parametrize(
    "text", ["", "MB", "-1", "64M", "64 mebi", "1e6", "1_000", "٣MB", "1.", ".5MB", "64MB\n", "nan"]
)
def test_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="write bytes"):
        size(text)


DAY = 24 * 60
clock = st.integers(0, DAY - 1)


def shown(start: int, end: int) -> str:
    return f"{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}"


@given(clock, st.integers(1, DAY - 1), clock)
def test_a_window_is_open_from_its_start_for_its_length(start: int, length: int, at: int) -> None:
    """Counted from its start, whether or not it passes midnight."""
    window = shown(start, (start + length) % DAY)
    assert opened([window], at) == ((at - start) % DAY < length)


@given(st.lists(st.tuples(clock, clock).filter(lambda w: w[0] != w[1]), min_size=1), clock)
def test_windows_add_up_and_the_next_is_the_first_that_opens(
    windows: list[tuple[int, int]], at: int
) -> None:
    texts = [shown(*window) for window in windows]
    assert opened(texts, at) == any(opened([text], at) for text in texts)
    opens = {start for start, _ in windows}
    following = next(later for ahead in range(DAY) if (later := (at + ahead) % DAY) in opens)
    assert next_opening(texts, at) == shown(following, 0)[:5]


@given(st.text())
def test_any_text_is_a_window_or_refused(text: str) -> None:
    try:
        start, end = minutes(text)
    except ValueError:
        return
    assert 0 <= start < DAY
    assert 0 <= end <= DAY
    assert start != end


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [("20:00-06:00", 1200, 360), ("8:05 - 17:30", 485, 1050), ("00:00-24:00", 0, DAY)],
)
def test_a_window(text: str, start: int, end: int) -> None:
    assert minutes(text) == (start, end)


def test_the_whole_day_is_always_open() -> None:
    assert all(opened(["00:00-24:00"], at) for at in range(DAY))


@pytest.mark.parametrize(
    ("text", "why"),
    [("24:00-06:00", "a day goes"), ("20:00-24:01", "a day goes"), ("20:60-22:00", "a day goes"),
     ("20:00-22:99", "a day goes"), ("06:00-06:00", "it ends when it begins"), ("20-6", "write a"),
     ("", "write a"), ("20:00", "write a"), ("20:00-06:00\n", "write a"),
     ("٢٠:00-06:00", "write a")],
)  # fmt: skip
def test_no_window(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        minutes(text)
