"""summary.json: the run in numbers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from atoll.experiment.compare import Arm, Comparison
from atoll.experiment.lines import RoundLine
from atoll.experiment.setup import Setup

__all__ = ["per_client", "summarize", "trainable_parameters"]


def summarize(
    setup: Setup, comparison: Comparison, *, lines: Sequence[RoundLine], seconds: float
) -> dict[str, Any]:
    """All that summary.json holds."""
    bench = setup.bench
    arms = comparison.arms
    return {
        "task": setup.experiment.model.task,
        "metric": bench.objective.metric,
        "final": comparison.federated.common,
        "baselines": {
            name: arms[name].common if name in arms else None for name in ("local", "pooled")
        },
        "own": {
            name: _own(setup, arms[name]) if name in arms else None
            for name in ("federated", "local", "pooled")
        },
        "per_client": per_client(setup, comparison),
        "num_rounds": lines[-1].round if lines else 0,
        "exchanges": sum(line.exchanges for line in lines),
        "bytes_up": sum(line.bytes_up for line in lines),
        "bytes_down": sum(line.bytes_down for line in lines),
        "seconds": round(seconds, 3),
        "trainable_parameters": trainable_parameters(setup),
        "skipped_clients": list(setup.data.skipped),
        "epsilon": None,
        "delta": None,
    }


def per_client(setup: Setup, comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Rows and metrics of each client, None where it has no held-out rows."""
    final = setup.bench.objective.final
    return {
        client: {
            "train": count.train,
            "test": count.test,
            **{
                name: final(arm.own[client].mean)
                if client in arm.own and arm.own[client].count
                else None
                for name, arm in comparison.arms.items()
            },
        }
        for client, count in setup.data.counts.items()
    }


def trainable_parameters(setup: Setup) -> int:
    """Values that local training moves."""
    parts = ("adapter", "head") if setup.bench.train_head else ("adapter",)
    if "train" not in setup.program.algorithms:
        return 0
    state = setup.start.server
    return sum(value.numel() for part in parts for value in state.get(part, {}).values())


def _own(setup: Setup, arm: Arm) -> dict[str, float | None]:
    """Mean by rows, the worst client, and the standard deviation over clients."""
    objective = setup.bench.objective
    scores = [score for score in arm.own.values() if score.count]
    if not scores:
        return {"mean": None, "worst": None, "spread": None}
    finals = [objective.final(score.mean) for score in scores]
    total = sum(score.total for score in scores) / sum(score.count for score in scores)
    return {
        "mean": objective.final(total),
        "worst": min(finals) if objective.higher_is_better else max(finals),
        "spread": statistics.pstdev(finals),
    }
