"""What an attacker learns of a run, in words and tables for people who decide about it."""

from __future__ import annotations

import math

from atoll.report.audit_file import Audit, Books, Mechanism, Membership, Secrets, View
from atoll.report.leak_words import place_of, share, times, trains_whole
from atoll.report.words import number
from atoll.words import counted

__all__ = ["leak_sentences", "uncovered"]

PARTS = {
    "server": "what a server sees of uploads",
    "secrets": "planted secrets",
    "membership": "whether the model tells who was trained on",
    "mechanism": "whether the noise is there",
}

CHANGED = (
    "The rows that were tried are not known to be those that the run was trained on: they were "
    "changed since, or stand at sites, which do not tell which they have. What follows is of the "
    "run's model and promise, on these rows."
)
UNITS = {"client": "client", "example": "row"}
SEES = {
    "client": " In this run the server saw single updates.",
    "sum": " In this run the server saw sums of updates, and no update.",
    "noisy": " In this run the server saw sums that clients had hidden in noise, and no update.",
}


def leak_sentences(audit: Audit) -> list[str]:
    """The short of it, one sentence or two for each part that was measured."""
    found = [CHANGED] if audit.changed else []
    if audit.server:
        words = _of_server({view.name: view for view in audit.server}, audit.compared)
        found.append(f"{words}{SEES.get(audit.sees, '')}")
    if audit.secrets:
        found.append(_of_secrets(audit.secrets, audit))
    if audit.membership:
        found.append(_of_membership(audit.membership))
    promise = _of_promise(audit)
    return [*found, promise] if promise else found


def uncovered(audit: Audit) -> list[tuple[str, str]]:
    """Parts that say nothing of the run, and why."""
    return [(PARTS.get(name, name), why) for name, why in audit.missing.items()]


def _of_server(views: dict[str, View], compared: float) -> str:
    several = counted(views["sum"].clients, "client") if "sum" in views else "clients"
    places = {
        "client": "from one client's update of a round",
        "sum": f"from the sum of {several}, which is what secure aggregation shows",
        "noisy": f"from what ε = {compared:.4g} releases",
    }
    seen = {name: views[name].seen for name in places if name in views}
    words = {name: one for name, one in seen.items() if one.tokens is not None}
    if words:
        parts = [
            f"{share(one.tokens)} {places[name]} (guessing: {share(one.token_chance)})"
            for name, one in words.items()
        ]
        return (
            f"Of the words in its clients' rows a server finds {'; '.join(parts)}.{_order(views)}"
        )
    parts = [f"{_pairs(one.row_auc)} {places[name]}" for name, one in seen.items()]
    return (
        "Of pairs of a row that was trained on and one that was not, a server tells which is "
        f"which, where guessing gets half of them right: {'; '.join(parts)}."
    )


def _pairs(found: float | None) -> str:
    """A share of pairs; what is right less often than by guessing tells nothing."""
    return "no more than by guessing" if found is not None and found <= 0.5 else share(found)


def _order(views: dict[str, View]) -> str:
    told = {name: views[name] for name in ("step", "batch") if name in views}
    one = "training" if trains_whole(views) else "step"
    parts = [
        f"{share(view.seen.order)} of one {one} on {counted(view.rows, 'row')}"
        for view in told.values()
        if view.seen.order is not None
    ]
    return f" It puts words in their place: {', '.join(parts)}." if parts else ""


def _of_secrets(secrets: Secrets, audit: Audit) -> str:
    plain, private = ({one.copies: one for one in arm} for arm in (secrets.plain, secrets.private))
    most, under = max(plain), f"under ε = {audit.compared:.4g}"
    # Under a promise it is the run's own noise; else that of one to compare with.
    own, how, other, rest = plain, "", private, f"{under} it would give"
    if audit.epsilon is not None:
        own, how, other, rest = (
            private,
            f" as this run trains, {under},",
            plain,
            "without its noise",
        )
    return (
        f"Of a secret that one client wrote {times(most)} among {counted(secrets.rows, 'row')}, "
        f"the model gives {own[most].bits:.1f} bits away{how} of "
        f"{math.log2(secrets.compared + 1):.1f} that could be measured; {rest} "
        f"{other[most].bits:.1f}. A secret that nobody wrote has {own[0].bits:.1f} by chance. "
        "Each bit halves the guesses that it takes to find the secret."
    )


def _of_membership(found: Membership) -> str:
    pairs, ends = found.auc.value, found.auc.interval
    chance = pairs <= 0.5 or (ends is not None and ends[0] <= 0.5)
    said = (
        "Whether the model was trained on a row, its loss tells no better than guessing does, as "
        "far as these rows show"
        if chance
        else "By its loss, a row that was trained on is told from one that was not in "
        f"{share(pairs)} of pairs (guessing: 50%)"
    )
    if found.tpr is None:
        return f"{said}."
    return (
        f"{said}; where 1% may be accused wrongly, {share(found.tpr.value)} are found out "
        "(guessing: 1%)."
    )


def _of_promise(audit: Audit) -> str:
    """What is said last: of a run that promises something, whether that holds."""
    found = audit.mechanism
    if audit.refuted:
        promised = "" if audit.epsilon is None else f" of ε = {audit.epsilon:.4g}"
        return (
            f"The promise{promised} does not hold: {'; '.join(audit.refuted)}. Do not publish the "
            "model under that promise."
        )
    if found is None:
        return ""
    claim = found.claim
    if not found.own:
        return (
            "The run promises no differential privacy: nothing bounds what one client's rows can "
            f"do to the model. Noise of {claim.noise_multiplier:.3g} clips in each round would "
            f"promise ε = {claim.epsilon:g}."
        )
    if claim.epsilon is None:
        return "The run adds no noise that would bound anything."
    return (
        f"The run promises each {UNITS.get(claim.unit, claim.unit)} ε = {claim.epsilon:.4g} at "
        f"δ = {claim.delta:g}. {_arithmetic(found, audit.ledger)} {_code(found)}"
    )


def _arithmetic(found: Mechanism, ledger: Books | None) -> str:
    """What stands behind the number."""
    claim = found.claim
    said = (
        f"The arithmetic: {found.canaries:,} clients, simulated under noise of "
        f"{claim.noise_multiplier:.3g} clips in {counted(claim.rounds, 'release')}, suggest ε = "
        f"{found.estimate or 0:.3g} and refute any below {found.bound:.3g}"
    )
    if ledger is None or ledger.unread:
        why = "there is none" if ledger is None else ledger.unread
        return f"{said}; the ledger of releases was not read: {why}."
    return f"{said}; the ledger of releases comes to {number(ledger.epsilon)}: in accord."


def _code(found: Mechanism) -> str:
    """What stands behind the noise."""
    if found.untried or found.noise is None or found.expected is None:
        why = f" ({found.untried})" if found.untried else ""
        return f"The code was not tried{why}: nothing says whether the noise is there."
    return (
        f"The code: the noise of {place_of(found.claim)} was measured as {found.noise:.3g} clips, "
        f"where {found.expected:.3g} should be: in accord."
    )
