"""The numbers that a reader looks for first."""

from __future__ import annotations

from typing import NamedTuple

from atoll.report.read import RunFiles
from atoll.report.records import Summary
from atoll.report.verdict import decimals, difference
from atoll.report.words import bytes_text, interval_text, number, seconds_text, signed

__all__ = ["Tile", "tiles"]


class Tile(NamedTuple):
    """A number, what it is, and what to know of it."""

    label: str
    value: str
    note: str


def tiles(run: RunFiles, *, common_test: bool) -> list[Tile]:
    """Metric, differences to the baselines, bytes and time."""
    summary = run.summary or Summary()
    found = _so_far(run)
    if summary.final is not None:
        found = [_final(summary, common_test=common_test)]
    found += [tile for arm in ("local", "pooled") if (tile := _against(summary, arm))]
    up = sum(row.bytes_up or 0 for row in run.rounds)
    down = sum(row.bytes_down or 0 for row in run.rounds)
    spent = sum(row.seconds or 0 for row in run.rounds)
    if up + down:
        sent = f"{bytes_text(up)} up, {bytes_text(down)} down"
        found.append(Tile("exchanged", bytes_text(up + down), sent))
    if spent:
        whole = "" if summary.seconds is None else f"{seconds_text(summary.seconds)} in all"
        found.append(Tile("time of the rounds", seconds_text(spent), whole))
    return found


def _final(summary: Summary, *, common_test: bool) -> Tile:
    digits, intervals = decimals(summary), summary.intervals
    note = "on the common test set" if common_test else "on all held-out rows"
    if intervals and intervals.federated:
        ends = interval_text(intervals.federated, digits=digits)
        note = f"{ends} ({intervals.level:.0%} interval), {note}"
    return Tile(f"{summary.metric}, federated", number(summary.final, digits=digits), note)


def _against(summary: Summary, arm: str) -> Tile | None:
    gap = difference(summary, arm)
    if gap is None:
        return None
    note = "" if summary.higher else "lower is better"
    if gap.ends:
        ends = interval_text(gap.ends, digits=gap.digits, sign=True)
        note = f"{ends} ({gap.level:.0%} interval)"
    label = "against local only" if arm == "local" else "against pooled"
    return Tile(label, signed(gap.value, digits=gap.digits), note)


def _so_far(run: RunFiles) -> list[Tile]:
    """The last measured metric of a run that has not ended."""
    for row in reversed(run.rounds):
        if row.metric and row.metric[1] is not None:
            name, value = row.metric
            return [Tile(f"{name} so far", number(value), f"in round {row.round}")]
    return []
