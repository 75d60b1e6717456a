"""How long a run takes: its work, counted exactly, at the pace that this machine has now."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from atoll.experiment.setup import Setup
from atoll.local.bench import model_values
from atoll.local.infer import Rows, measure
from atoll.local.intervals import draws, resamples
from atoll.models.objective import Example
from atoll.plan.asked import Asked
from atoll.plan.clock import Line, Sample, Seconds, fit, timed
from atoll.plan.frozen import frozen_pace
from atoll.plan.pace import (
    HeadPace,
    folding_pace,
    forward_pace,
    head_paces,
    training_pace,
)
from atoll.plan.work import Work

__all__ = ["Pace", "comparing", "pace_of", "sample_rows", "seconds_of"]

SAMPLE = 256


@dataclass(frozen=True)
class Pace:
    """Lines of seconds over amounts of work.

    training: passes, clients of each, cells.   forward: passes, cells.   fresh: as forward.
    folds, sums: by algorithm, see `HeadPace`.
    """

    training: Line
    forward: Line
    fresh: Line
    folds: Mapping[str, Line]
    sums: Mapping[str, Line]


def pace_of(setup: Setup, exchanges: Sequence[Asked]) -> Pace:
    """Try a little of everything that the run will do."""
    none = Seconds()
    trained = [one for one in exchanges if one.kind == "round"]
    training = Line((none, none, none))
    if trained:
        first = trained[0].context
        # The largest stack of the first round, which starts with the clients that have most rows.
        ordered = sorted(first.cohort, key=lambda name: -setup.data.counts[name].train)
        training = training_pace(setup, [first.at(name) for name in ordered])
    heads: Mapping[str, HeadPace] = head_paces(setup)
    folds = {name: pace.fold for name, pace in heads.items()}
    for name, algorithm in setup.program.algorithms.items():
        if name not in folds:
            folds[name] = folding_pace(setup, algorithm)
    sums = {name: pace.sums for name, pace in heads.items()}
    rows = sample_rows(setup)
    return Pace(training, forward_pace(setup, rows), frozen_pace(setup, rows), folds, sums)


def seconds_of(work: Work, pace: Pace) -> Seconds:
    """What work takes at a pace."""
    training, forward = work.training, work.forward
    found = pace.training.at(training.passes, training.clients, training.cells)
    found += pace.forward.at(forward.passes, forward.cells)
    found += pace.fresh.at(work.fresh.passes, work.fresh.cells)
    for name, answers in work.answers.items():
        found += pace.folds[name].at(answers.exchanges, answers.clients)
        if name in pace.sums:
            found += pace.sums[name].at(answers.clients, answers.rows)
    return found


def sample_rows(setup: Setup) -> list[Example]:
    """Some rows as evaluations meet them: common ones, else held-out ones, else training rows."""
    common = setup.common_test()
    if common:
        return list(common[:SAMPLE])
    for split in ("test", "train"):
        found: list[Example] = []
        for client in setup.data.clients:
            found += setup.bench.examples(client, split)
            if len(found) >= SAMPLE:
                break
        if found:
            return found[:SAMPLE]
    raise AssertionError("clients without rows are no clients")


def comparing(setup: Setup) -> Seconds:
    """Confidence intervals: metrics on rows that are drawn again and again."""
    clients = setup.data.clients
    local = len(clients) if "local" in setup.experiment.evaluate.baselines else 0
    models = 1 + local + ("pooled" in setup.experiment.evaluate.baselines)
    own = [len(setup.bench.examples(client, "test")) for client in clients]
    common = setup.common_test()
    shared = sum(own) if common is None else len(common)
    line = _drawing_pace(setup)
    found = Seconds()
    if shared:
        number = resamples(models) * models
        found += line.at(number, number * shared)
    if local:
        number = 2 * resamples(2 * local)
        found += line.at(number * sum(map(bool, own)), number * sum(own))
    return found


def _drawing_pace(setup: Setup) -> Line:
    """Over (metrics, rows that they are computed on)."""
    rows = measure(setup.bench, model_values(setup.start.server), sample_rows(setup)[:8])
    samples: list[Sample] = []
    for copies in (1, 64):
        many = Rows(rows.scores.repeat(copies, 1), rows.counts.repeat(copies))
        drawn = functools.partial(
            draws, setup.bench.objective.metric, [[many]],
            number=20, generator=np.random.default_rng(0),
        )  # fmt: skip
        _, taken = timed(drawn, torch.device("cpu"))
        samples.append(((20, 20 * len(many.counts)), taken))
    return fit(samples)
