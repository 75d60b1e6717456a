"""Sizes and hours as people write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

__all__ = ["minutes", "next_opening", "opened", "size"]

_UNITS = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)")
_HOURS = re.compile(r"([0-9]{1,2}):([0-9]{2}) ?- ?([0-9]{1,2}):([0-9]{2})")
_DAY = 24 * 60


def size(text: str) -> int:
    """Bytes of `64MB`, `1.5 GB` or `512 KiB`; a part of a byte is left out.

    Raises:
        ValueError: when it is no size.
    """
    found = _SIZE.fullmatch(text)
    if not found or found[2].lower() not in _UNITS:
        raise ValueError("write bytes, or a number with kB, MB, GB, TB, KiB, MiB, GiB or TiB")
    return int(Fraction(found[1]) * _UNITS[found[2].lower()])


def minutes(text: str) -> tuple[int, int]:
    """The first minute of the day inside `20:00-06:00`, and the first one after it.

    Raises:
        ValueError: when it is no window of time.
    """
    found = _HOURS.fullmatch(text)
    if not found:
        raise ValueError('write a window of time as "20:00-06:00"')
    start_hour, start_minute, end_hour, end_minute = map(int, found.groups())
    start, end = 60 * start_hour + start_minute, 60 * end_hour + end_minute
    if start >= _DAY or end > _DAY or start_minute > 59 or end_minute > 59:
        raise ValueError("a day goes from 00:00 to 24:00")
    if start == end:
        raise ValueError("it ends when it begins; write 00:00-24:00 for the whole day")
    return start, end


def opened(windows: Sequence[str], minute: int) -> bool:
    """Whether a minute of the day is inside one of the windows; one may pass midnight."""
    return any(
        start <= minute < end if start < end else minute >= start or minute < end
        for start, end in map(minutes, windows)
    )


def next_opening(windows: Sequence[str], minute: int) -> str:
    """When the next window opens, as `20:00`."""
    wait = min((start - minute) % _DAY for start, _ in map(minutes, windows))
    hour, minute = divmod((minute + wait) % _DAY, 60)
    return f"{hour:02}:{minute:02}"
