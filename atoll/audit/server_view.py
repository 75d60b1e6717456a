"""What a server sees of its clients: the tokens and rows that uploads give away.

Five views, the sharpest first: one step on one row; one step on a batch; a client's update as the
run is configured; the sum of a cohort's, which is all that secure aggregation shows; and what
differential privacy of clients releases of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from atoll.audit.eye import Eye
from atoll.audit.looking import Seen, Upload, looked, mean_of
from atoll.audit.trial import Trial, summed
from atoll.config.tasks import TASKS
from atoll.local.bench import model_values
from atoll.models.objective import Example
from atoll.tree import Tree, subtract

__all__ = ["View", "views"]

STEPS = 4
"""Rows that are looked at one by one."""
Step = Callable[[Sequence[Example]], Tree]
"""What one step on rows makes leave a client."""


@dataclass(frozen=True)
class View:
    """One way to look: at how many clients' updates together, of how many rows, and what is seen.

    name: step, batch, client, sum or noisy.
    """

    name: str
    clients: int
    rows: int
    seen: Seen


def views(eye: Eye, trial: Trial, step: Step, private: Trial | None, *, batch: int) -> list[View]:
    """The views of a trial's clients; the last of `private`, the same under privacy of clients.

    batch: rows of one.   private: None where rows are hidden in what clients send already.
    """
    # One row of a contrastive loss has nothing to be told from.
    size = 2 if TASKS[eye.setup.experiment.model.task].contrasts else 1
    (first, own), *_ = trial.rows.items()
    parts = [own[start : start + size] for start in range(0, min(STEPS * size, len(own)), size)]
    payloads, everyone = trial.payloads(), [row for rows in trial.rows.values() for row in rows]
    clients, some = len(trial.rows), own[:batch]
    looks = [
        *(("step", 1, Upload(step(part), part, inverted=size == 1)) for part in parts),
        ("batch", 1, Upload(step(some), some, inverted=size == 1)),
        ("client", 1, Upload(payloads[first]["update"].tree, own)),
        ("sum", clients, Upload(summed(list(payloads.values())), everyone)),
    ]
    if private is not None:
        released = subtract(private.after(1), model_values(private.state))
        looks.append(("noisy", clients, Upload(released, everyone)))
    seen = looked(eye, [upload for _, _, upload in looks])
    of_steps = mean_of(seen[: len(parts)])
    later = zip(looks[len(parts) :], seen[len(parts) :], strict=True)
    return [
        View("step", 1, size, of_steps),
        *(View(name, many, len(upload.rows), found) for (name, many, upload), found in later),
    ]
