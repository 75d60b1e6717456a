"""Shares and counts of an audit, as people read them."""

from __future__ import annotations

from collections.abc import Container

from atoll.report.audit_file import Claim
from atoll.report.words import MISSING

__all__ = ["place_of", "share", "times", "trains_whole"]


def share(value: float | None) -> str:
    """`41%`; small ones with a decimal."""
    if value is None:
        return MISSING
    return f"{value:.0%}" if value >= 0.095 or value == 0 else f"{value:.1%}"


def times(count: int) -> str:
    """`once`, `4 times`."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def trains_whole(views: Container[str]) -> bool:
    """Whether the views of rows are of a client's whole training: what leaves it is private then,
    and there is no view under noise that is added to sums."""
    return "noisy" not in views


def place_of(claim: Claim) -> str:
    """Where in the run's code noise is measured."""
    if claim.unit == "example":
        return "one step"
    places = {
        "local": "one update",
        "distributed": "the smallest sum",
        "blt": "all its rounds",
    }
    return places.get(claim.mechanism, "one round")
