"""Did federating help? In one sentence."""

from __future__ import annotations

from typing import NamedTuple

from atoll.report.records import Intervals, Summary
from atoll.report.words import interval_text, number, signed

__all__ = ["Difference", "answer", "decimals", "difference", "differences", "verdict"]


class Difference(NamedTuple):
    """Two arms' metrics apart, with the bounds of that and the digits to write it with."""

    value: float
    ends: tuple[float, float] | None
    level: float
    digits: int


def decimals(summary: Summary) -> int:
    """Digits behind the point: losses and perplexities are larger than shares."""
    return 3 if summary.higher else 2


def answer(summary: Summary) -> str | None:
    """`helped`, `did not help`, `was a draw`; None where nothing was trained alone."""
    gains = _gains(summary)
    if not gains:
        return None
    better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    return "helped" if better > worse else "did not help" if worse > better else "was a draw"


def verdict(summary: Summary) -> str | None:
    """Whether federating helped, and what that rests on; None where nothing was trained alone."""
    gains, said = _gains(summary), answer(summary)
    if said is None:
        return None
    better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    do, also = ("does" if many == 1 else "do" for many in (better, worse))
    text = (
        f"Federating {said}: on their own held-out rows, {better} of {len(gains)} clients {do} "
        f"better with the federated model than with their own, {worse} {also} worse"
    )
    local = summary.baselines.get("local")
    if local is None or summary.final is None:
        return f"{text}."
    digits = decimals(summary)
    pair = [number(value, digits=digits) for value in (summary.final, local)]
    return f"{text}; on everyone's test rows it is {pair[0]} against {pair[1]}."


def differences(summary: Summary) -> list[str]:
    """`Federated minus local only: +0.035 (95% interval +0.009 to +0.061).`, and the like."""
    found, intervals, digits = [], summary.intervals or Intervals(), decimals(summary)
    if summary.final is not None and intervals.federated:
        value = number(summary.final, digits=digits)
        ends = interval_text(intervals.federated, digits=digits)
        found.append(f"Federated: {value} ({intervals.level:.0%} interval {ends}).")
    for arm, title in (("local", "local only"), ("pooled", "pooled")):
        gap = difference(summary, arm)
        if gap and gap.ends:
            value = signed(gap.value, digits=digits)
            ends = interval_text(gap.ends, digits=digits, sign=True)
            found.append(f"Federated minus {title}: {value} ({gap.level:.0%} interval {ends}).")
    return found


def difference(summary: Summary, arm: str) -> Difference | None:
    """The federated metric minus an arm's, on the common rows; None where one was not measured."""
    base, found = summary.baselines.get(arm), summary.intervals or Intervals()
    if base is None or summary.final is None:
        return None
    ends = found.federated_minus_local if arm == "local" else found.federated_minus_pooled
    return Difference(summary.final - base, ends, found.level, decimals(summary))


def _gains(summary: Summary) -> list[float]:
    gains = (summary.gain(row) for row in summary.per_client.values())
    return [gain for gain in gains if gain is not None]
