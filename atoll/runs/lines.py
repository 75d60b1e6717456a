"""One line a round: for the progress display and for rounds.jsonl."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from atoll.core import Context, Report, payload_nbytes
from atoll.core.answers import UNASKED
from atoll.experiment.setup import Setup
from atoll.local.bench import model_values
from atoll.local.evaluation import score_of
from atoll.local.infer import evaluate
from atoll.runs.compare import final_of
from atoll.words import counted, listed

__all__ = ["RoundLine", "public", "round_line", "troubles"]


@dataclass(frozen=True)
class RoundLine:
    """What one round came to, for people and for rounds.jsonl.

    Where a secret draw hides who took part, nothing tells how many did: clients is None, and bytes
    are those of an expected cohort.
    """

    round: int
    loss: float | None
    metric: float | None
    own: float | None
    bytes_up: int
    bytes_down: int
    exchanges: int
    clients: int | None
    failures: dict[str, str]
    seconds: float
    epsilon: float | None = None


def round_line(
    setup: Setup, report: Report, seconds: float, epsilon: float | None = None
) -> RoundLine:
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
    up, down, clients = _traffic(setup, report)
    failed = [f for x in report.exchanges for f in x.failures]
    return RoundLine(
        round=report.round,
        loss=trained[0].metrics["loss"] if trained and not setup.experiment.privacy.on else None,
        metric=own if common is None else common,
        own=own,
        bytes_up=up,
        bytes_down=down,
        exchanges=sum(x.kind == "exchange" for x in report.exchanges),
        clients=clients,
        failures={f.client: f.message for f in failed} if clients is not None else {},
        seconds=seconds,
        epsilon=epsilon,
    )


def troubles(report: Report, *, secret: bool) -> Iterator[str]:
    """What went wrong in a round, for people; secret: that tells not who was in its cohort."""
    for exchange in report.exchanges:
        hidden = secret and exchange.kind == "round"
        for why in exchange.closed:
            yield "the sum was asked for again" + ("" if hidden else f": {why}")
        kinds = sorted({one.kind for one in exchange.failures})
        if hidden and kinds == [UNASKED]:
            yield "nobody was asked: a cohort that is too small for a sum counts as nobody"
        elif hidden and kinds:
            yield f"{counted(len(exchange.failures), 'client')} failed ({listed(kinds)})"
        for failure in () if hidden else exchange.failures:
            counts = failure.client in exchange.folded
            what = "is counted, and failed" if counts else "is left out"
            yield f"{failure.client} {what}: {failure.message}"


def _traffic(setup: Setup, report: Report) -> tuple[int, int, int | None]:
    """Bytes up and down, and how many clients trained."""
    trained = [x for x in report.exchanges if x.kind == "round"]
    hidden = setup.protection is not None and bool(trained)
    seen = [x for x in report.exchanges if not hidden or x.kind != "round"]
    up, down = sum(x.bytes_up for x in seen), sum(x.bytes_down for x in seen)
    if setup.protection is None or not hidden:
        clients = sum(len(x.folded) for x in trained)
        return up, down, clients
    algorithm, expected = setup.program.algorithms["train"], setup.protection.drawing.expected
    broadcast = algorithm.server.broadcast(report.position.server, "")
    reply = algorithm.travelling(algorithm.client.template(broadcast))
    # Of any clients, as many as are expected.
    cohort = tuple(sorted(setup.data.clients)[: round(expected)])
    more_up, more_down = algorithm.said(Context(0, "", report.round, 0, cohort, 1))
    return (
        up + more_up + round(expected * payload_nbytes(reply)),
        down + more_down + round(expected * payload_nbytes(broadcast)),
        None,
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
        "epsilon": line.epsilon,
    }
