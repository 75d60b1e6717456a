"""Numbers and texts as people read them."""

from __future__ import annotations

import re

__all__ = [
    "MISSING",
    "bytes_text",
    "grouped",
    "interval_text",
    "legible",
    "number",
    "seconds_text",
    "short",
    "signed",
]

MISSING = "–"
# Control characters; marks that turn the direction of the text after them, with which a name could
# rewrite its neighbours; and what neither HTML nor XML has room for.
_ABSENT = "".join(
    chr(plane + last) for plane in range(0, 0x110000, 0x10000) for last in (0xFFFE, 0xFFFF)
)
_HIDDEN = re.compile(
    f"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufdd0-\ufdef{_ABSENT}]"
)


def number(value: float | None, *, digits: int = 3) -> str:
    """`0.812`; what is too small or too large for so many decimals keeps its first digits."""
    if value is None:
        return MISSING
    if 0 < abs(value) < 10**-digits or abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{value:,.{digits}f}"


def signed(value: float | None, *, digits: int = 3) -> str:
    """`+0.031`, `−0.120`."""
    if value is None:
        return MISSING
    sign = "+" if value > 0 else "−" if value < 0 else "±"
    return sign + number(abs(value), digits=digits)


def interval_text(ends: tuple[float, float] | None, *, digits: int = 3, sign: bool = False) -> str:
    """`0.790 to 0.834`."""
    if ends is None:
        return MISSING
    write = signed if sign else number
    return " to ".join(write(end, digits=digits) for end in ends)


def bytes_text(count: float) -> str:
    """`980 B`, `3.1 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def seconds_text(seconds: float) -> str:
    """`4.2 s`, `3:07`, `1:02:03`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def grouped(value: int | None) -> str:
    """`22,713,216`."""
    return MISSING if value is None else f"{value:,}"


def legible(text: str) -> str:
    """Text without characters that show nothing, or that change how others show."""
    plain = text.encode("utf-8", "replace").decode("utf-8")
    return _HIDDEN.sub("\N{REPLACEMENT CHARACTER}", plain)


def short(text: str, length: int) -> str:
    """One line of at most so many characters; of blanks alone, a character that can be seen."""
    line = " ".join(legible(text).split()) or "\N{REPLACEMENT CHARACTER}" * bool(text)
    return line if len(line) <= length else line[: length - 1] + "…"
