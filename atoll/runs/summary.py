"""summary.json: the run in numbers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from atoll import rng
from atoll.experiment.setup import Setup
from atoll.local.infer import Rows
from atoll.local.intervals import LEVEL, draws, gain_interval, interval, resamples
from atoll.protection import Spread
from atoll.runs.compare import Arm, Comparison, final_of, metrics_of_arm
from atoll.runs.lines import RoundLine
from atoll.runs.selection import best_round

__all__ = ["per_client", "summarize", "trainable_parameters"]

ARMS = ("federated", "local", "pooled")
WORST = 0.1
"""The share of the clients whose mean stands beside the single worst one."""


def summarize(
    setup: Setup,
    comparison: Comparison,
    *,
    lines: Sequence[RoundLine],
    seconds: float,
    privacy: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All that summary.json holds; privacy: what its ε means."""
    metric, arms = setup.bench.objective.metric, comparison.arms
    found = {name: metrics_of_arm(setup, arm) for name, arm in arms.items()}
    finals = {name: numbers and numbers[metric.name] for name, numbers in found.items()}
    return {
        "task": setup.experiment.model.task,
        "metric": metric.name,
        "higher_is_better": metric.higher_is_better,
        "final": finals["federated"],
        "baselines": {name: finals.get(name) for name in ARMS[1:]},
        "metrics": found,
        "intervals": _intervals(setup, arms),
        "own": {name: _own(setup, arms[name]) if name in arms else None for name in ARMS},
        "per_client": None if _untold(setup) else per_client(setup, comparison),
        "num_rounds": lines[-1].round if lines else 0,
        "best_round": best_round(setup, lines),
        "exchanges": sum(line.exchanges for line in lines),
        "bytes_up": sum(line.bytes_up for line in lines),
        "bytes_down": sum(line.bytes_down for line in lines),
        "seconds": round(seconds, 3),
        "trainable_parameters": trainable_parameters(setup),
        "skipped_clients": list(setup.data.skipped),
        "epsilon": lines[-1].epsilon if lines else None,
        "delta": None if privacy is None else setup.experiment.privacy.delta,
        "privacy": privacy,
        "secure_sums": _secure_sums(setup),
    }


def _untold(setup: Setup) -> bool:
    """Whether nothing is told of single clients: by a server to which they do not tell it, nor in a
    simulation of one that sees sums."""
    privacy = setup.experiment.privacy
    return bool(privacy.secure_aggregation) or (setup.data.made_up and privacy.hides)


def per_client(setup: Setup, comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Rows and metrics of each client, None where it has no held-out rows.

    gain: how much better the federated model is than the client's own, on the client's rows.
    """
    found: dict[str, dict[str, Any]] = {}
    for client, count in {**setup.data.counts, **comparison.joined}.items():
        measured = {
            name: arm.own[client].score(setup.bench.objective.metric)
            for name, arm in comparison.arms.items()
            if client in arm.own
        }
        found[client] = {
            "train": count.train,
            "test": count.test,
            **{
                name: final_of(setup, measured[name]) if name in measured else None
                for name in comparison.arms
            },
            **_gain(setup, comparison, client),
        }
    return found


def trainable_parameters(setup: Setup) -> int:
    """Values that local training moves."""
    parts = ("adapter", "head") if setup.bench.train_head else ("adapter",)
    if "train" not in setup.program.algorithms:
        return 0
    state = setup.start.server
    return sum(value.numel() for part in parts for value in state.get(part, {}).values())


def _secure_sums(setup: Setup) -> dict[str, int | str | None] | None:
    """The fewest clients of a sum, the size of groups, and who holds the key of encrypted ones;
    None where the server sees updates."""
    privacy, training = setup.experiment.privacy, setup.program.algorithms.get("train")
    if not privacy.secure_aggregation or training is None:
        return None
    group, hiding = max(stage.group for stage in training.stages), setup.protection
    least = hiding.terms.floor if isinstance(hiding, Spread) else privacy.min_survivors
    found: dict[str, int | str | None] = {"least": least, "group": group or None}
    if privacy.secure_aggregation == "ckks":
        found["holder"] = privacy.key_holder or setup.data.clients[0]
    return found


def _own(setup: Setup, arm: Arm) -> dict[str, float | None]:
    """Mean by rows, the worst client and the worst tenth, and the deviation over clients; the worst
    are single clients, of which nothing may be told."""
    metric = setup.bench.objective.metric
    scores = [score for rows in arm.own.values() if (score := rows.score(metric)).count]
    if not scores:
        return dict.fromkeys(("mean", "worst", "worst_decile", "spread"))
    finals = [metric.finals(score.sums, score.count)[metric.name] for score in scores]
    worst = sorted(finals, reverse=not metric.higher_is_better)
    total = scores[0]
    for score in scores[1:]:
        total += score
    told = not _untold(setup)
    tenth = statistics.fmean(worst[: math.ceil(WORST * len(worst))])
    return {
        "mean": final_of(setup, total),
        "worst": worst[0] if told else None,
        "worst_decile": tenth if told else None,
        "spread": statistics.pstdev(finals),
    }


def _intervals(setup: Setup, arms: Mapping[str, Arm]) -> dict[str, Any] | None:
    """Of the federated metric on the common rows, and of its difference to the other arms'."""
    rows = {
        name: [one for one in arm.common if isinstance(one, Rows)] for name, arm in arms.items()
    }
    models = {name: found for name, found in rows.items() if found}
    if "federated" not in models:
        return None
    found = draws(
        setup.bench.objective.metric,
        list(models.values()),
        number=resamples(sum(map(len, models.values()))),
        generator=rng.numpy_generator(setup.experiment.seed, "bootstrap"),
    )
    columns = dict(zip(models, found.T, strict=True))
    federated, number = columns.pop("federated"), len(models["federated"][0].counts)
    return {
        "level": LEVEL,
        "federated": interval(federated, rows=number),
        **{
            f"federated_minus_{name}": interval(federated - column, rows=number)
            for name, column in columns.items()
        },
    }


def _gain(setup: Setup, comparison: Comparison, client: str) -> dict[str, Any]:
    metric, local = setup.bench.objective.metric, comparison.local
    if local is None or client not in local.own.keys() & comparison.federated.own.keys():
        return {}
    pair = [comparison.federated.own[client], local.own[client]]
    first, second = (final_of(setup, rows.score(metric)) for rows in pair)
    sign = 1 if metric.higher_is_better else -1
    gain = None if first is None or second is None else sign * (first - second)
    known = [rows for rows in pair if isinstance(rows, Rows) and len(rows.counts)]
    if len(known) < len(pair):
        return {"gain": gain, "gain_interval": comparison.gains.get(client)}
    found = gain_interval(
        metric, *known, models=2 * len(local.own),
        generator=rng.numpy_generator(setup.experiment.seed, "bootstrap", client),
    )  # fmt: skip
    return {"gain": gain, "gain_interval": found}
