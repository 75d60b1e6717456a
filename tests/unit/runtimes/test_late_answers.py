"""An answer that comes after its round: dropped, or folded into the client's next round."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
import torch
from torch import Tensor

from atoll.aggregators import mean, median
from atoll.config import load
from atoll.core import Aggregator, Payload, Program
from atoll.errors import ConfigError
from atoll.experiment.checks import check_late
from atoll.runtimes.gathering import Closing
from atoll.stages import uniform
from tests.support.wire import Peer, Wire, rounds, rows, toy

NAMES = ("ada", "bob", "zoe")


def fitted(client: str, start: Tensor) -> tuple[Tensor, int]:
    """What five steps of a client come to, and its points: the toy's formula again."""
    points, sides = rows(client)
    w = start
    for _ in range(5):
        w = w - points.T @ (torch.sigmoid(points @ w) - sides) / len(points)
    return w - start, len(points)


def averaged(start: Tensor, parts: list[tuple[Tensor, float]]) -> Tensor:
    whole = sum(weight for _, weight in parts)
    return start + torch.stack([update * weight for update, weight in parts]).sum(0) / whole


def ran(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, late: bool, number: int
) -> tuple[list[Tensor], list[dict[str, int]], list[str]]:
    """Values after each round, whose answers were folded and to which question, and what was told.

    Zoe answers round 1 only when that is over.
    """
    told: list[str] = []
    over, first = Event(), [True]

    def waits(payload: Payload) -> Payload:
        if first.pop() if first else False:
            over.wait(20)
        return payload

    peers = {name: Peer(path / name, name, {"fit": toy()}) for name in NAMES[:2]}
    wire = Wire({**peers, "zoe": Peer(path / "zoe", "zoe", {"fit": toy(waits)})})
    values, folded = [], []
    closing = Closing(quorum=2, grace=3.0, late=late)
    with rounds(wire, path / "s", monkeypatch, number=number, closing=closing, told=told,
                staleness=0.5) as reports:  # fmt: skip
        for report in reports:
            over.set()
            values.append(report.position.server["adapter"]["w"])
            folded.append(dict(report.exchanges[0].folded))
    return values, folded, [f.message for f in report.exchanges[0].failures] + told


def test_a_late_answer_counts_in_the_next_round_for_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, folded, _ = ran(tmp_path, monkeypatch, late=True, number=3)
    assert folded == [
        {"ada": 0, "bob": 0},
        {"ada": 1, "bob": 1, "zoe": 0},
        {"ada": 2, "bob": 2, "zoe": 2},
    ]
    w = torch.zeros(8)
    stale = fitted("zoe", w)
    w = averaged(w, [fitted("ada", w), fitted("bob", w)])
    torch.testing.assert_close(values[0], w)
    w = averaged(w, [fitted("ada", w), fitted("bob", w), (stale[0], 0.5 * stale[1])])
    torch.testing.assert_close(values[1], w)
    w = averaged(w, [fitted(name, w) for name in NAMES])
    torch.testing.assert_close(values[2], w)


def test_a_late_answer_is_dropped_where_nothing_else_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, folded, _ = ran(tmp_path, monkeypatch, late=False, number=2)
    assert folded == [{"ada": 0, "bob": 0}, {"ada": 1, "bob": 1, "zoe": 1}]
    w = torch.zeros(8)
    w = averaged(w, [fitted("ada", w), fitted("bob", w)])
    w = averaged(w, [fitted(name, w) for name in NAMES])
    torch.testing.assert_close(values[1], w)


def test_who_lost_what_it_was_asked_is_asked_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    wire = Wire({name: Peer(tmp_path / name, name, {"fit": toy()}) for name in NAMES})
    wire.absent = {"zoe"}
    closing = Closing(quorum=2, grace=3.0, late=True)
    with rounds(wire, tmp_path / "s", monkeypatch, number=2, closing=closing, told=told,
                staleness=0.5) as reports:  # fmt: skip
        folded = []
        for report in reports:
            folded.append(dict(report.exchanges[0].folded))
            wire.absent = set()
            wire.tell()
    assert folded == [{"ada": 0, "bob": 0}, {"ada": 1, "bob": 1, "zoe": 1}]


@pytest.mark.parametrize(
    ("rule", "late", "refused"),
    [(mean, "fold", False), (mean, "drop", False), (median, "fold", True), (median, "drop", False)],
)
def test_folding_late_answers_needs_an_aggregator_that_weighs(
    tmp_path: Path, rule: Callable[[], Aggregator], late: str, refused: bool
) -> None:
    tree = {"model": {"name_or_path": "builtin:minilm", "task": "classification"},
            "data": {"path": "data"}, "federation": {"late": late}}  # fmt: skip
    (tmp_path / "fl.yaml").write_text(json.dumps(tree))
    stages = (uniform(),) if rule is median else toy().stages
    algorithm = replace(toy(), aggregator=rule(), stages=stages)
    program = Program({"train": algorithm}, lambda number: ("train",))
    with pytest.raises(ConfigError, match="'median' ignores weights") if refused else nullcontext():
        check_late(load(tmp_path / "fl.yaml"), program)
