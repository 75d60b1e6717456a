"""The tables of what an attacker learns."""

from __future__ import annotations

from collections.abc import Iterator

from atoll.report.audit_file import Audit, Mechanism, Membership, Secrets, Seen, View
from atoll.report.leak_words import share, times
from atoll.report.tables import Table
from atoll.report.words import MISSING, interval_text, number
from atoll.words import counted

__all__ = ["leak_tables"]


def leak_tables(audit: Audit) -> Iterator[Table]:
    """A table for each part."""
    if audit.server:
        yield _server_table(audit.server, audit.compared)
    if audit.secrets:
        yield _secrets_table(audit.secrets, audit.compared)
    if audit.membership:
        yield _membership_table(audit.membership)
    if audit.mechanism:
        yield _mechanism_table(audit.mechanism)


def _server_table(views: tuple[View, ...], compared: float) -> Table:
    titles = {
        "step": "one step on one row",
        "client": "one client's update",
        "sum": "the sum of {} clients",
        "noisy": "… under ε = {:g}",
    }
    rows = []
    for view in views:
        title = titles.get(view.name, view.name)
        title = title.format(compared if view.name == "noisy" else view.clients)
        rows.append((title, *_seen(view.seen)))
    head = ("a server that sees", "words found", "guessing", "words AUC", "certain", "rows AUC",
            "in order")  # fmt: skip
    return Table("What a server sees", head, tuple(rows))


def _seen(seen: Seen) -> tuple[str, ...]:
    certain = MISSING
    if seen.exact is not None and seen.true is not None:
        wrong = f", {seen.wrong:.3g} wrong" if seen.wrong else ""
        certain = f"{seen.exact:.3g} of {seen.true:.3g}{wrong}"
    return (
        share(seen.tokens), share(seen.token_chance), number(seen.token_auc), certain,
        number(seen.row_auc), share(seen.order),
    )  # fmt: skip


def _secrets_table(secrets: Secrets, compared: float) -> Table:
    private = {one.copies: one for one in secrets.private}
    rows = tuple(
        (
            "nowhere" if one.copies == 0 else times(one.copies),
            f"{one.bits:.1f}",
            MISSING if one.fitted is None else f"{one.fitted:.1f}",
            f"{private[one.copies].bits:.1f}" if one.copies in private else MISSING,
        )
        for one in secrets.plain
    )
    head = ("written by one client", "bits given away", "as fitted", f"under ε = {compared:g}")
    return Table("Planted secrets", head, rows)


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
    rows = [
        (f"ε {whose}, δ = {claim.delta:g}", number(claim.epsilon), MISSING),
        ("ε refuted below", number(found.bound), MISSING),
        ("ε suggested", number(found.estimate), interval_text(found.interval)),
        (f"noise multiplier {whose}", number(claim.noise_multiplier), MISSING),
        ("noise multiplier in one round", number(found.noise), interval_text(found.noise_interval)),
    ]
    caption = (
        f"What {found.canaries:,} canary clients see: {counted(claim.rounds, 'release')}, each "
        f"with a chance of {claim.rate:.3g} to be in it"
    )
    return Table(caption, ("noise", "value", "95% interval"), tuple(rows))
