"""The tables of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from atoll.report.read import RunFiles
from atoll.report.records import Intervals, RoundRow, Summary
from atoll.report.verdict import decimals
from atoll.report.words import MISSING, bytes_text, grouped, interval_text, number, seconds_text
from atoll.report.words import signed as with_sign
from atoll.words import counted

__all__ = ["ARMS", "Table", "arms_table", "clients_table", "cost_table", "failures_table",
           "level_of", "metrics_table", "rounds_table"]  # fmt: skip

ARMS = {"federated": "federated", "local": "local only", "pooled": "pooled"}
MOST = 2000
"""Rows of one table: more would make a page that no browser scrolls."""


@dataclass(frozen=True)
class Table:
    """Rows under a head; the first cell of a row names it.

    words: columns that hold no numbers.   more: what was left out.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: frozenset[int] = frozenset()
    more: str = ""


def arms_table(summary: Summary, *, common_test: bool) -> Table | None:
    """One row for each way to a model: on common rows, and on each client's own."""
    digits, intervals = decimals(summary), summary.intervals
    finals = {"federated": summary.final, **summary.baselines}
    ends = {"federated": intervals.federated} if intervals else {}
    rows = []
    for name, title in ARMS.items():
        own = summary.own.get(name)
        if finals.get(name) is None and (own is None or own.mean is None):
            continue
        values = [own.mean, own.worst, own.worst_decile, own.spread] if own else [None] * 4
        cells = [number(value, digits=digits) for value in (finals.get(name), *values)]
        cells.insert(1, interval_text(ends.get(name), digits=digits))
        rows.append((title, *cells))
    if not rows:
        return None
    where = "common test set" if common_test else "all held-out rows"
    head = ("model", where, level_of(summary), "own rows: mean", "worst client",
            "worst 10%", "spread")  # fmt: skip
    return _filled(Table(f"{summary.metric} of each way to a model", head, tuple(rows)))


def level_of(summary: Summary) -> str:
    """`95% interval`."""
    return f"{(summary.intervals or Intervals()).level:.0%} interval"


def metrics_table(summary: Summary, *, common_test: bool) -> Table | None:
    """All metrics on the common rows; None where there is only one."""
    found = {arm: values for arm in ARMS if (values := summary.metrics.get(arm))}
    names = list(dict.fromkeys(name for values in found.values() for name in values))
    if len(names) < 2:
        return None
    rows = tuple(
        (ARMS[arm], *(number(values.get(name)) for name in names)) for arm, values in found.items()
    )
    where = "the common test set" if common_test else "all held-out rows"
    return Table(f"All metrics on {where}", ("model", *names), rows)


def clients_table(summary: Summary) -> Table | None:
    """Each client's rows, and what each model reaches on its own held-out ones."""
    if not summary.per_client:
        return None
    digits = decimals(summary)
    rows = tuple(
        (
            client,
            grouped(row.train),
            grouped(row.test),
            *(number(value, digits=digits) for value in (row.federated, row.local, row.pooled)),
            with_sign(summary.gain(row), digits=digits),
            interval_text(row.gain_interval, digits=digits, sign=True),
        )
        for client, row in sorted(summary.per_client.items())[:MOST]
    )
    head = ("client", "training rows", "test rows", *ARMS.values(), "gain", level_of(summary))
    caption = f"{summary.metric} on each client's own rows"
    more = _left_out(len(summary.per_client), "clients.jsonl")
    return _filled(Table(caption, head, rows, more=more))


def rounds_table(run: RunFiles) -> Table | None:
    """One row a round."""
    if not run.rounds:
        return None
    digits = decimals(run.summary or Summary())
    name = next((pair[0] for row in run.rounds if (pair := row.metric)), "metric")
    rows = tuple(_round(row, digits) for row in run.rounds[:MOST])
    head = ("round", "loss", name, "own rows", "clients", "failures", "exchanges", "up", "down",
            "time", "ε")  # fmt: skip
    return _filled(
        Table("Every round", head, rows, more=_left_out(len(run.rounds), "rounds.jsonl"))
    )


def _round(row: RoundRow, digits: int) -> tuple[str, ...]:
    metric = row.metric
    return (
        str(row.round),
        number(row.loss),
        number(metric[1] if metric else None, digits=digits),
        number(row.own, digits=digits),
        grouped(row.clients),
        str(len(row.failures)) if row.failures else MISSING,
        grouped(row.exchanges),
        *(MISSING if x is None else bytes_text(x) for x in (row.bytes_up, row.bytes_down)),
        MISSING if row.seconds is None else seconds_text(row.seconds),
        number(row.epsilon),
    )


def cost_table(run: RunFiles) -> Table | None:
    """Bytes and time: in all, and on average over rounds."""
    rows = []
    for title, write, values in (
        ("clients to server", bytes_text, [row.bytes_up for row in run.rounds]),
        ("server to clients", bytes_text, [row.bytes_down for row in run.rounds]),
        ("time of the rounds", seconds_text, [row.seconds for row in run.rounds]),
    ):
        known = [value for value in values if value is not None]
        if known:
            rows.append((title, write(sum(known)), write(sum(known) / len(known)),
                         write(max(known))))  # fmt: skip
    if run.summary and run.summary.seconds is not None:
        whole = seconds_text(run.summary.seconds)
        rows.append(("time in all, with baselines", whole, MISSING, MISSING))
    if not rows:
        return None
    return Table("Bytes and time", ("", "in all", "a round, mean", "a round, most"), tuple(rows))


def failures_table(run: RunFiles) -> Table | None:
    """Who failed, when, and why, the most frequent first."""
    found: dict[str, list[tuple[int, str]]] = {}
    for row in run.rounds:
        for client, why in (row.failures or {}).items():
            found.setdefault(client, []).append((row.round, why))
    if not found:
        return None
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    rows = tuple(
        (client, str(len(times)), _listed([str(number) for number, _ in times]),
         "; ".join(dict.fromkeys(why for _, why in times)))
        for client, times in ordered[:MOST]
    )  # fmt: skip
    return Table(
        f"Failures of {counted(len(found), 'client')}",
        ("client", "failures", "in rounds", "why"),
        rows,
        words=frozenset({2, 3}),
        more=_left_out(len(found), "rounds.jsonl"),
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return ", ".join(names[:12]) + more


def _left_out(rows: int, file: str) -> str:
    return f"The first {MOST:,} of {rows:,}; all stand in {file}." if rows > MOST else ""


def _filled(table: Table) -> Table:
    """Without columns that hold nothing."""
    kept = [
        place
        for place in range(len(table.head))
        if place == 0 or any(row[place] != MISSING for row in table.rows)
    ]
    return Table(
        table.caption,
        tuple(table.head[place] for place in kept),
        tuple(tuple(row[place] for place in kept) for row in table.rows),
        frozenset(kept.index(place) for place in table.words),
        table.more,
    )
