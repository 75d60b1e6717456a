"""The tables of what an attacker learns."""

from __future__ import annotations

from collections.abc import Iterator

from atoll.report.audit_file import Audit, Mechanism, Membership, Secrets, Seen, View
from atoll.report.leak_words import place_of, share, times, trains_whole
from atoll.report.records import Interval
from atoll.report.tables import Table
from atoll.report.words import MISSING, interval_text, number

__all__ = ["leak_tables"]

SEEN = (
    "Words found: of the different words in the rows, with as many guesses as there are words. "
    "Rows told apart: of pairs of a row that was trained on and one that was not; guessing gets "
    "50%, and less tells nothing. Words put in place: found in their order."
)
CLIPS = (
    "A clip is the most that one client, or one row where rows are protected, can move a sum. The "
    "ε are of the arithmetic: simulated clients under noise of the promised size, and the releases "
    "that were written down. The last line alone is measured in the run's own code."
)


def leak_tables(audit: Audit) -> Iterator[Table]:
    """A table for each part."""
    if audit.server:
        yield _server_table(audit, audit.server)
    if audit.secrets:
        yield _secrets_table(audit, audit.secrets)
    if audit.membership:
        yield _membership_table(audit.membership)
    if audit.mechanism:
        yield _mechanism_table(audit, audit.mechanism)


def _server_table(audit: Audit, views: tuple[View, ...]) -> Table:
    head = ("a server that sees", "words found", "by guessing", "rows told apart",
            "words put in place")  # fmt: skip
    whole = trains_whole({view.name for view in views})
    rows = tuple((_title(audit, view, whole=whole), *_seen(view.seen)) for view in views)
    return Table("What a server sees of its clients' rows", head, rows, more=SEEN)


def _title(audit: Audit, view: View, *, whole: bool) -> str:
    step = f"{'a training' if whole else 'one step'} on {_rows(view.rows)}"
    title = {
        "step": step,
        "batch": step,
        "client": "one client's update",
        "sum": f"the sum of {view.clients} clients",
        "noisy": f"… under ε = {audit.compared:.4g}",
    }.get(view.name, view.name)
    return f"{title} (this run)" if view.name == audit.sees else title


def _rows(count: int) -> str:
    return "one row" if count == 1 else f"{count} rows"


def _seen(seen: Seen) -> tuple[str, ...]:
    return (
        share(seen.tokens), share(seen.token_chance), share(seen.row_auc), share(seen.order),
    )  # fmt: skip


def _secrets_table(audit: Audit, secrets: Secrets) -> Table:
    private = {one.copies: f"{one.bits:.1f}" for one in secrets.private}
    rows = [
        (
            "nowhere" if one.copies == 0 else times(one.copies),
            f"{one.bits:.1f}",
            private.get(one.copies, MISSING),
        )
        for one in secrets.plain
    ]
    under = f"under ε = {audit.compared:.4g}"
    plain, hidden = "as this run trains", under
    if audit.epsilon is not None:
        plain, hidden = "without its noise", f"as this run trains, {under}"
    return Table(
        "Planted secrets: bits given away", ("written by one client", plain, hidden), tuple(rows)
    )


def _membership_table(found: Membership) -> Table:
    rows = [("pairs told apart (guessing: 50%)", share(found.auc.value),
             _between(found.auc.interval))]  # fmt: skip
    if found.tpr is not None:
        rows.append(("found out, where 1% is accused wrongly (guessing: 1%)",
                     share(found.tpr.value), _between(found.tpr.interval)))  # fmt: skip
    caption = (
        f"Whether the model tells who was trained on: {found.members:,} rows that were, "
        f"{found.others:,} that were not"
    )
    return Table(caption, ("by how well it knows a row", "share", "95% interval"), tuple(rows))


def _between(ends: Interval) -> str:
    return MISSING if ends is None else f"{share(ends[0])} to {share(ends[1])}"


def _mechanism_table(audit: Audit, found: Mechanism) -> Table:
    claim = found.claim
    whose = "promised" if found.own else "to compare with"
    ledger = [("ε that the ledger's releases come to", number(audit.ledger.epsilon), MISSING)
              ] if audit.ledger else []  # fmt: skip
    rows = [
        (f"ε {whose}, at δ = {claim.delta:g}", number(claim.epsilon), MISSING),
        *ledger,
        ("ε that simulated clients suggest", number(found.estimate),
         interval_text(found.interval)),
        ("ε below which they refute any promise", number(found.bound), MISSING),
        (f"noise {whose}, in clips", number(claim.noise_multiplier), MISSING),
        (f"noise that {place_of(claim)} should have", number(found.expected), MISSING),
        ("noise measured there, in the run's own code", number(found.noise),
         interval_text(found.noise_interval)),
    ]  # fmt: skip
    return Table("Whether the noise is there", ("what", "value", "95% interval"), tuple(rows),
                 more=CLIPS)  # fmt: skip
