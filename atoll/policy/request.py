"""What a site is asked to take part in, held against its policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from atoll.config import Call, Experiment
from atoll.config.tasks import TASKS
from atoll.errors import PolicyError
from atoll.policy.names import EVERYTHING, STATISTICS, may_leave
from atoll.policy.schema import ANY, BUILT_IN, Policy
from atoll.policy.values import next_opening, opened
from atoll.words import listed

__all__ = ["check_cohort", "check_experiment", "check_now", "too_little_noise"]


def check_experiment(
    policy: Policy, experiment: Experiment, *, base: str | None, rows: int | None
) -> None:
    """Refuse a run that breaks a rule.

    base: the fingerprint of the weights that would be trained.   rows: this site's training rows.
    None is what is not known yet; ask again before anything trains.

    Raises:
        PolicyError: with the first rule that is broken.
    """
    for rule, broken in _RULES.items():
        why = broken(policy, experiment)
        if why:
            raise PolicyError(rule, why)
    if base is not None and not {base, ANY} & set(policy.base_models):
        raise PolicyError(
            "base_models",
            f"the base model's weights have the fingerprint {base}, which this site does not list",
        )
    # How many there are is not told: a refusal reaches the server.
    if rows is not None and rows < policy.min_rows:
        raise PolicyError(
            "min_rows", f"this site has fewer than {policy.min_rows} training rows for the run"
        )


def check_now(policy: Policy, now: datetime) -> None:
    """Refuse training outside of the policy's hours; `now` is the site's own time.

    Raises:
        PolicyError: with the time at which the next window opens.
    """
    minute = 60 * now.hour + now.minute
    if policy.hours is None or opened(policy.hours, minute):
        return
    raise PolicyError(
        "hours",
        f"training may run in {listed(policy.hours)}, and it is {now:%H:%M} at this site; it may "
        f"again from {next_opening(policy.hours, minute)}",
    )


def check_cohort(policy: Policy, summed: int) -> None:
    """Refuse a secure sum of so few clients that it says much of each.

    Raises:
        PolicyError: names both numbers.
    """
    if summed < policy.min_cohort:
        raise PolicyError(
            "min_cohort",
            f"secure aggregation would hide this site among {summed} clients; it asks for "
            f"{policy.min_cohort}",
        )


def _task(policy: Policy, experiment: Experiment) -> str | None:
    task = experiment.model.task
    if {task, ANY} & set(policy.tasks):
        return None
    return f"model.task is {task}; this site takes part in {', '.join(policy.tasks)}"


def _algorithm(policy: Policy, experiment: Experiment) -> str | None:
    for call, own_only in _calls(experiment):
        if call.name in policy.algorithms:
            continue
        if ":" not in call.name and (own_only or BUILT_IN in policy.algorithms):
            continue
        return f"{call.path} is {call.name}; this site allows {', '.join(policy.algorithms)}"
    return None


def _calls(experiment: Experiment) -> Iterator[tuple[Call, bool]]:
    """Functions that the experiment names; True: what is Atoll's own runs nowhere in a federation.

    A function of somebody else's would be imported, which runs it, wherever it is named.
    """
    federation = experiment.federation
    packing = (*federation.stages, *federation.broadcast_stages)
    sent = (federation.algorithm, *packing, federation.aggregator, federation.server)
    yield from ((call, False) for call in sent if call)
    local = (federation.runtime, experiment.data.partition)
    yield from ((call, True) for call in local if call)


def _remote_code(policy: Policy, experiment: Experiment) -> str | None:
    if policy.remote_code or not experiment.model.trust_remote_code:
        return None
    return "model.trust_remote_code is true: code that comes with the model would run at this site"


def _tensors(policy: Policy, experiment: Experiment) -> str | None:
    allowed = ", ".join(policy.tensors)
    if experiment.adapter.method == "full" and EVERYTHING not in policy.tensors:
        return f"adapter.method is full, and a full model may not leave; what may: {allowed}"
    if _solves(experiment) and not may_leave("sum", policy.tensors, channel=STATISTICS):
        return f"the head is solved from statistics, which may not leave; what may: {allowed}"
    return None


def _privacy(policy: Policy, experiment: Experiment) -> str | None:
    asked, rule = experiment.privacy, policy.privacy
    if not rule.required:
        return None
    if not asked.on:
        return "this site asks for differential privacy, and the run has no privacy section"
    most = asked.clip if isinstance(asked.clip, float) else asked.clip.largest
    if rule.max_clip is not None and most > rule.max_clip:
        return f"the run cuts updates to {most:g}; this site asks for {rule.max_clip:g} at most"
    noise, least = asked.noise_multiplier, rule.min_noise_multiplier
    return None if noise is None else too_little_noise(least, noise)


def too_little_noise(least: float | None, noise_multiplier: float) -> str | None:
    """Why a run's noise is too little for a site; None where it is enough."""
    if least is None or noise_multiplier >= least:
        return None
    return f"the run's noise multiplier is {noise_multiplier:g}; this site asks for {least:g}"


def _label_names(policy: Policy, experiment: Experiment) -> str | None:
    facts = TASKS[experiment.model.task]
    named = facts.head and not facts.numbers
    if policy.label_names or not named or experiment.data.labels is not None:
        return None
    return "the names of this site's labels may not leave; name all labels in data.labels"


def _label_histograms(policy: Policy, experiment: Experiment) -> str | None:
    if policy.label_histograms:
        return None
    if _solves(experiment):
        return (
            "the head is solved from statistics, which hold counts or sums by label; train it "
            "(adapter.head: train)"
        )
    if experiment.train.class_weights == "balanced":
        return (
            "train.class_weights is balanced, which counts all clients' labels; use "
            "balanced-per-client"
        )
    return None


def _solves(experiment: Experiment) -> bool:
    return TASKS[experiment.model.task].solved and experiment.adapter.head != "train"


def _max_rounds(policy: Policy, experiment: Experiment) -> str | None:
    asked, most = experiment.federation.num_rounds, policy.max_rounds
    if most is None or asked <= most:
        return None
    return f"federation.num_rounds is {asked}; this site takes part in at most {most}"


_RULES: dict[str, Callable[[Policy, Experiment], str | None]] = {
    "tasks": _task,
    "algorithms": _algorithm,
    "remote_code": _remote_code,
    "tensors": _tensors,
    "privacy": _privacy,
    "label_names": _label_names,
    "label_histograms": _label_histograms,
    "max_rounds": _max_rounds,
}
"""Why a run breaks a rule; None where it does not."""
