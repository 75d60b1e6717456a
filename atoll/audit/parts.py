"""The parts of an audit, each by itself; a part that says nothing of a run raises `Uncovered`."""

from __future__ import annotations

import math
import os

from atoll.audit.canaries import exposed, planted, secrets_of
from atoll.audit.canary_algorithm import mechanism_release
from atoll.audit.canary_clients import Estimate, Schedule, estimated, gaussian_release, watched
from atoll.audit.findings import Claim, Mechanism, Secrecy
from atoll.audit.looking import eye_of
from atoll.audit.membership import Membership, losses_of, membership
from atoll.audit.one_run import lower_bound_from_scores
from atoll.audit.server_view import View, views
from atoll.audit.subject import Subject, Uncovered
from atoll.audit.trial import protected
from atoll.config.tasks import TASKS

__all__ = ["mechanism_part", "membership_part", "secrets_part", "server_part"]

OTHERS = 64
"""Rows that nobody trained on, which uploads are held against."""
CANARIES, IN_CODE, FEWEST = 10_000, 1_000, 100
Z = 1.96


def server_part(subject: Subject) -> list[View]:
    """What a server sees of uploads."""
    setup, everyone = subject.setup, [row for own in subject.rows.values() for row in own]
    others = list(subject.others[:OTHERS])
    eye = eye_of(setup, subject.run.values, others, probe=everyone[:2])
    if eye is None:
        raise Uncovered(
            f"adapter.method is {setup.experiment.adapter.method}: no linear layer trains, and "
            "this attack looks at gradients of such layers"
        )
    trial = subject.trial({c: [eye.cut(row) for row in own] for c, own in subject.rows.items()})
    return views(eye, trial, subject.private(trial))


def secrets_part(subject: Subject) -> Secrecy:
    """How much of planted secrets a model gives away."""
    setup, budget, bench = subject.setup, subject.budget, subject.setup.bench
    secrets = secrets_of(
        setup, list(subject.rows), others=budget.secrets, draw=subject.draw("secrets")
    )
    if secrets is None:
        raise Uncovered(
            f"secrets are planted in texts that a model writes or gives one label, and not for "
            f"task {setup.experiment.model.task}, or rows of so few tokens (data.max_length)"
        )
    labelled = TASKS[setup.experiment.model.task].classes
    before = subject.run.values if labelled else None
    trial = subject.trial(planted(subject.rows, secrets), rounds=budget.rounds)
    hidden = protected(trial, subject.private(trial), rounds=budget.rounds)
    plain, private = (
        exposed(bench, one.after(budget.rounds), secrets, before) for one in (trial, hidden)
    )
    rows = max(len(own) for own in subject.rows.values())
    return Secrecy(plain, private, budget.rounds, rows, len(secrets.others))


def membership_part(subject: Subject) -> Membership:
    """How well losses tell training rows from others."""
    bench, budget = subject.setup.bench, subject.budget
    if TASKS[subject.setup.experiment.model.task].contrasts:
        raise Uncovered("the loss of a pair depends on the pairs beside it, not on itself alone")
    if not subject.others:
        raise Uncovered("there are no held-out rows to tell training rows from")
    clients = subject.setup.data.clients
    places = [(c, n) for c in clients for n in range(len(bench.examples(c, "train")))]
    chosen = subject.draw("members").permutation(len(places))[: budget.members]
    members = [bench.examples(c, "train")[n] for c, n in (places[place] for place in chosen)]
    losses = [losses_of(bench, subject.run.values, rows)
              for rows in (members, subject.others[: budget.members])]  # fmt: skip
    return membership(losses[0], losses[1], subject.draw("intervals"))


def mechanism_part(subject: Subject) -> Mechanism:
    """What canary clients see of the noise."""
    claim, key = subject.promised, os.urandom(32)
    schedule, noise = Schedule(claim.rounds, claim.rate), claim.noise_multiplier
    if claim.mechanism != "gaussian":
        raise Uncovered("noise that later rounds take back is not audited; its ε is for all rounds")
    scores = watched(gaussian_release(noise, key=key), schedule, canaries=CANARIES, key=key)
    found = estimated(scores, claim.delta)
    code = _in_code(subject, claim, key) if claim.unit == "client" else None
    seen, ends = _noise(code)
    hidden = math.isfinite(found.epsilon)
    return Mechanism(
        claim=claim,
        own=subject.claim is not None,
        canaries=CANARIES,
        bound=lower_bound_from_scores(scores.values, scores.included, claim.delta),
        estimate=found.epsilon if hidden else None,
        interval=found.interval if hidden else None,
        noise=seen,
        noise_interval=ends,
        less_noise=found.beyond(schedule.separation(noise))
        or (code is not None and code.beyond(Schedule().separation(noise))),
    )


def _in_code(subject: Subject, claim: Claim, key: bytes) -> Estimate | None:
    """What one round of the mechanism's own code lets show; None for too few values to tell."""
    trial = subject.trial(subject.rows)
    (payload, *_) = trial.payloads().values()
    canaries = min(IN_CODE, sum(value.numel() for value in payload["update"].tree.values()))
    if canaries < FEWEST:
        return None
    settings = subject.private(trial)
    if not subject.hides_clients:
        told = {"noise_multiplier": claim.noise_multiplier, "epsilon": None}
        settings = settings.model_copy(update=told)
    release = mechanism_release(trial, settings, canaries=canaries, key=key)
    return estimated(watched(release, Schedule(), canaries=canaries, key=key), claim.delta)


def _noise(code: Estimate | None) -> tuple[float | None, tuple[float, float] | None]:
    """The noise multiplier of one round, and the ends of its interval."""
    if code is None or code.separation <= Z * code.error:
        return None, None
    low, high = (code.separation + side * Z * code.error for side in (1, -1))
    return 1 / code.separation, (1 / low, 1 / high)
