"""One line a round: for the progress display and for rounds.jsonl."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atoll.core import Report
from atoll.experiment.setup import Setup
from atoll.local.bench import model_values
from atoll.local.evaluation import score_of
from atoll.local.infer import evaluate
from atoll.runs.compare import final_of

__all__ = ["RoundLine", "public", "round_line"]


@dataclass(frozen=True)
class RoundLine:
    """What one round came to, for people and for rounds.jsonl."""

    round: int
    loss: float | None
    metric: float | None
    own: float | None
    bytes_up: int
    bytes_down: int
    exchanges: int
    clients: int
    failures: dict[str, str]
    seconds: float


def round_line(setup: Setup, report: Report, seconds: float) -> RoundLine:
    """Gather a round, and score it where an evaluation was due."""
    trained = [x for x in report.exchanges if x.kind == "round"]
    asked = [x for x in report.exchanges if x.kind == "evaluation"]
    own = None
    common = None
    if asked:
        own = final_of(setup, score_of(asked[0].metrics))
        rows = setup.common_test()
        if rows is not None:
            values = model_values(report.position.server)
            common = final_of(setup, evaluate(setup.bench, values, rows))
    return RoundLine(
        round=report.round,
        loss=trained[0].metrics["loss"] if trained else None,
        metric=own if common is None else common,
        own=own,
        bytes_up=sum(x.bytes_up for x in report.exchanges),
        bytes_down=sum(x.bytes_down for x in report.exchanges),
        exchanges=sum(x.kind == "exchange" for x in report.exchanges),
        clients=len(trained[0].cohort) - len(trained[0].failures) if trained else 0,
        failures={f.client: f.message for x in report.exchanges for f in x.failures},
        seconds=seconds,
    )


def public(setup: Setup, line: RoundLine) -> dict[str, Any]:
    """The line of rounds.jsonl; the metric stands under its own name."""
    return {
        "round": line.round,
        "loss": line.loss,
        setup.bench.objective.metric.name: line.metric,
        "own": line.own,
        "bytes_up": line.bytes_up,
        "bytes_down": line.bytes_down,
        "exchanges": line.exchanges,
        "clients": line.clients,
        "failures": line.failures,
        "seconds": round(line.seconds, 3),
        "epsilon": None,
    }
