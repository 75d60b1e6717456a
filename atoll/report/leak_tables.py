"""The tables of what an attacker learns."""

from __future__ import annotations

from collections.abc import Iterator

from atoll.report.audit_file import Audit, Mechanism, Membership, Secrets, Seen, View
from atoll.report.leak_words import share, times
from atoll.report.tables import Table
from atoll.report.words import MISSING, interval_text, number
from atoll.words import counted

__all__ = ["leak_tables"]

PLACES = {"client": "round", "example": "step"}


def leak_tables(audit: Audit) -> Iterator[Table]:
    """A table for each part."""
    if audit.server:
        yield _server_table(audit, audit.server)
    if audit.secrets:
        yield _secrets_table(audit, audit.secrets)
    if audit.membership:
        yield _membership_table(audit.membership)
    if audit.mechanism:
        yield _mechanism_table(audit.mechanism)


def _server_table(audit: Audit, views: tuple[View, ...]) -> Table:
    head = ("a server that sees", "words found", "guessing", "words AUC", "certain", "rows AUC",
            "in order")  # fmt: skip
    rows = tuple((_title(audit, view), *_seen(view.seen)) for view in views)
    return Table("What a server sees", head, rows)


def _title(audit: Audit, view: View) -> str:
    step = "one step on one row" if view.rows == 1 else f"one step on {view.rows} rows"
    title = {
        "step": step,
        "batch": step,
        "client": "one client's update",
        "sum": f"the sum of {view.clients} clients",
        "noisy": f"… under ε = {audit.compared:.4g}",
    }.get(view.name, view.name)
    return f"{title} (this run)" if view.name == audit.sees else title


def _seen(seen: Seen) -> tuple[str, ...]:
    certain = MISSING
    if seen.exact is not None and seen.true is not None:
        wrong = f", {_count(seen.wrong)} wrong" if seen.wrong else ""
        certain = f"{_count(seen.exact)} of {_count(seen.true)}{wrong}"
    return (
        share(seen.tokens), share(seen.token_chance), number(seen.token_auc), certain,
        number(seen.row_auc), share(seen.order),
    )  # fmt: skip


def _count(value: float) -> str:
    """Of one row on average, or of many."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


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
    rows = [("pairs told (0.5 is guessing)", number(found.auc.value),
             interval_text(found.auc.interval))]  # fmt: skip
    if found.tpr is not None:
        rows.append(("found out, at 1% accused wrongly", number(found.tpr.value),
                     interval_text(found.tpr.interval)))  # fmt: skip
    caption = f"Who was trained on: {found.members:,} training rows, {found.others:,} others"
    return Table(caption, ("by the loss", "value", "95% interval"), tuple(rows))


def _mechanism_table(found: Mechanism) -> Table:
    claim = found.claim
    whose = "promised" if found.own else "to compare with"
    one = "update" if claim.mechanism == "local" else PLACES.get(claim.unit, "release")
    rows = [
        (f"ε {whose}, δ = {claim.delta:g}", number(claim.epsilon), MISSING),
        ("ε refuted below", number(found.bound), MISSING),
        ("ε suggested", number(found.estimate), interval_text(found.interval)),
        (f"noise multiplier {whose}", number(claim.noise_multiplier), MISSING),
        (
            f"noise multiplier in one {one}",
            number(found.noise),
            interval_text(found.noise_interval),
        ),
    ]
    caption = (
        f"What {found.canaries:,} canary clients see: {counted(claim.rounds, 'release')}, each "
        f"with a chance of {claim.rate:.3g} to be in it"
    )
    return Table(caption, ("noise", "value", "95% interval"), tuple(rows))
