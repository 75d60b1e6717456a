"""What a server sees of its clients: the tokens and rows that uploads give away.

Four views, the sharpest first: the gradient of one step on one row; a client's update as the run is
configured; the sum of a cohort's, which is all that secure aggregation shows; and what differential
privacy of clients releases of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from atoll.audit.looking import Eye, Seen, Upload, looked, mean_of
from atoll.audit.trial import Trial, gradient_of, protected, summed
from atoll.config.privacy import Privacy
from atoll.config.tasks import TASKS
from atoll.local.bench import model_values
from atoll.tree import subtract

__all__ = ["View", "views"]

STEPS = 4
"""Rows that are looked at one by one."""


@dataclass(frozen=True)
class View:
    """One way to look: at how many clients' updates together, of how many rows, and what is seen.

    name: step, client, sum or noisy.
    """

    name: str
    clients: int
    rows: int
    seen: Seen


def views(eye: Eye, trial: Trial, private: Privacy) -> list[View]:
    """The four views of a trial's clients; `private` is what the last one is released under."""
    bench, values = eye.setup.bench, eye.values
    (first, own), *_ = trial.rows.items()
    # One row of a contrastive loss has nothing to be told from.
    size = 2 if TASKS[eye.setup.experiment.model.task].contrasts else 1
    parts = [own[start : start + size] for start in range(0, min(STEPS * size, len(own)), size)]
    steps = [Upload(gradient_of(bench, values, part), part, one=size == 1) for part in parts]
    payloads, everyone = trial.payloads(), [row for rows in trial.rows.values() for row in rows]
    after = protected(trial, private, rounds=1).after(1)
    before = model_values(trial.state)
    seen = looked(
        eye,
        [
            *steps,
            Upload(payloads[first]["update"].tree, own),
            Upload(summed(list(payloads.values())), everyone),
            Upload(subtract(after, before), everyone),
        ],
    )
    clients = len(trial.rows)
    return [
        View("step", 1, size, mean_of(seen[: len(steps)])),
        View("client", 1, len(own), seen[-3]),
        View("sum", clients, len(everyone), seen[-2]),
        View("noisy", clients, len(everyone), seen[-1]),
    ]
