"""Shares and counts of an audit, as people read them."""

from __future__ import annotations

from atoll.report.words import MISSING

__all__ = ["share", "times"]


def share(value: float | None) -> str:
    """`41%`; small ones with a decimal."""
    if value is None:
        return MISSING
    return f"{value:.0%}" if value >= 0.095 or value == 0 else f"{value:.1%}"


def times(count: int) -> str:
    """`once`, `4 times`."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
