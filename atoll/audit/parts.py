"""The parts of an audit, each by itself; a part that says nothing of a run raises `Uncovered`."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from atoll.audit.canaries import TASKS as SECRET_TASKS
from atoll.audit.canaries import exposed, planted, secrets_of
from atoll.audit.canary_clients import Schedule, estimated, gaussian_release, watched
from atoll.audit.eye import eye_of
from atoll.audit.findings import Claim, Mechanism, Secrecy
from atoll.audit.membership import Membership, losses_of, membership
from atoll.audit.noise_seen import (
    NoiseSeen,
    noise_between,
    noise_of_rounds,
    noise_of_rows,
    noise_of_turns,
)
from atoll.audit.one_run import lower_bound_from_scores
from atoll.audit.server_view import View, views
from atoll.audit.shares import noise_of_shares
from atoll.audit.subject import Subject, Uncovered
from atoll.audit.trial import gradient_of
from atoll.config import Experiment
from atoll.config.privacy import AdaptiveClip
from atoll.config.tasks import TASKS
from atoll.models.objective import Example
from atoll.protection import Protection, Spread
from atoll.servers.quantile import split_noise
from atoll.tree import Tree

__all__ = ["mechanism_part", "membership_part", "secrets_part", "server_part"]

OTHERS = 64
"""Rows that nobody trained on, which uploads are held against."""
CANARIES, IN_CODE = 10_000, 1_000


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
    rows = {c: [eye.cut(row) for row in own] for c, own in subject.rows.items()}
    trial = subject.leaving(rows)
    private = None if subject.hides_before else subject.private(trial, rounds=1)

    def step(some: Sequence[Example]) -> Tree:
        if not subject.hides_before:
            return gradient_of(setup.bench, eye.values, some)
        (payload,) = subject.leaving({next(iter(rows)): some}).payloads().values()
        return payload["update"].tree

    return views(eye, trial, step, private, batch=subject.budget.batch)


def secrets_part(subject: Subject) -> Secrecy:
    """How much of planted secrets a model gives away."""
    setup, budget, bench = subject.setup, subject.budget, subject.setup.bench
    secrets = secrets_of(
        setup, list(subject.rows), others=budget.secrets, draw=subject.draw("secrets")
    )
    if secrets is None:
        raise Uncovered(_without_secrets(setup.experiment))
    labelled = TASKS[setup.experiment.model.task].classes
    before = subject.run.values if labelled else None
    rows, rounds = planted(subject.rows, secrets), budget.rounds
    trial = subject.trial(rows, rounds=rounds)
    hidden = (
        subject.leaving(rows, rounds=rounds)
        if subject.hides_before
        else subject.private(trial, rounds=rounds)
    )
    plain, private = (exposed(bench, one.after(rounds), secrets, before) for one in (trial, hidden))
    most = max(len(own) for own in subject.rows.values())
    return Secrecy(plain, private, rounds, most, len(secrets.others))


def _without_secrets(experiment: Experiment) -> str:
    task = experiment.model.task
    if task not in SECRET_TASKS:
        return f"secrets are texts that a model writes or gives one label, and this is task {task}"
    return (
        f"secrets of data.max_length {experiment.data.max_length} cannot be as many different ones "
        "as are needed"
    )


def membership_part(subject: Subject) -> Membership:
    """How well losses tell training rows from others."""
    bench, budget = subject.setup.bench, subject.budget
    if TASKS[subject.setup.experiment.model.task].contrasts:
        raise Uncovered("the loss of a pair depends on the pairs beside it, not on itself alone")
    if subject.run.changed:
        raise Uncovered(
            "the rows are not known to be those of the run, and which of them it was trained on, "
            "nobody knows"
        )
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
    claim, kept, key = subject.promised, subject.kept.noise, os.urandom(32)
    if not claim.rounds:
        raise Uncovered("this run released nothing")
    schedule, noise = Schedule(claim.rounds, claim.rate), kept or claim.noise_multiplier
    if claim.mechanism == "local":
        # Who takes part is seen: a canary sends one update, or its opposite.
        noise /= 2
    scores = watched(gaussian_release(noise, key=key), schedule, canaries=CANARIES, key=key)
    found = estimated(scores, claim.delta)
    code, hidden = _in_code(subject, claim, key), math.isfinite(found.epsilon)
    # Of sums of as few clients as there may be, more shows than of those that there were.
    known = hidden and (claim.mechanism != "distributed" or kept is not None)
    return Mechanism(
        claim=claim,
        own=subject.claim is not None,
        canaries=len(scores.values),
        bound=lower_bound_from_scores(scores.values, scores.included, claim.delta),
        estimate=found.epsilon if hidden else None,
        interval=found.interval if hidden else None,
        least=found.least if known else None,
        expected=code.promised,
        noise=code.multiplier,
        noise_interval=code.interval,
        less_noise=code.less,
        untried=code.untried,
    )


def _in_code(subject: Subject, claim: Claim, key: bytes) -> NoiseSeen:
    """What the run's own code lets show of one round, one sum, one update or one step."""
    trial = subject.leaving(subject.rows)
    if claim.unit == "example":
        return noise_of_rows(trial, claim.noise_multiplier)
    if claim.mechanism == "distributed":
        spread = subject.protection
        assert isinstance(spread, Spread), "clients add the noise"
        return noise_of_shares(trial, spread, claim.noise_multiplier)
    if claim.mechanism == "blt":
        protection = subject.protection
        assert isinstance(protection, Protection), "a server adds the noise"
        return noise_of_turns(trial, protection, claim.noise_multiplier, canaries=IN_CODE, key=key)
    settings, promised = subject.noise(trial), claim.noise_multiplier
    if claim.mechanism == "local":
        own = next(iter(subject.rows.values()))
        two = subject.leaving({"one": own, "other": own}).payloads()
        assert isinstance(settings.clip, float), "the file was checked"
        return noise_between(two, settings.clip, promised)
    if isinstance(settings.clip, AdaptiveClip):
        assert settings.clip.count_noise is not None, "the run's own is filled in"
        promised = split_noise(promised, settings.clip.count_noise)
    if not subject.hides_clients:
        told = {"noise_multiplier": claim.noise_multiplier, "epsilon": None}
        settings = settings.model_copy(update=told)
    return noise_of_rounds(trial, settings, promised, canaries=IN_CODE, key=key)
