"""A site that is admitted while a federation runs is opened, and takes part from then on."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.frames import Frame, Kind
from atoll.runtimes.gathering import Closing
from tests.support.wire import Peer, Wire, rounds, toy

ODD = Frame(Kind.DONE, 0, b"something else")
CLOSING = Closing(quorum=2, grace=20.0)


def test_a_site_that_comes_later_joins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    names = ("ada", "late", "zoe")
    wire = Wire({name: Peer(tmp_path / name, name, {"fit": toy()}) for name in names})
    with rounds(wire, tmp_path / "s", monkeypatch, number=6, closing=CLOSING, told=told,
                later=["late"]) as reports:  # fmt: skip
        answered = [set(exchange.clients) for report in reports for exchange in report.exchanges]
    assert answered[0] == {"ada", "zoe"}
    assert answered[-1] == set(names)
    assert told.count("late has joined") == 1


def test_a_site_that_cannot_join_is_told_of_and_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    names = ("ada", "late", "zoe")
    wire = Wire({name: Peer(tmp_path / name, name, {"fit": toy()}) for name in names})
    monkeypatch.setattr(wire.sites["late"], "_say", lambda letter, send: send(ODD))
    with rounds(wire, tmp_path / "s", monkeypatch, number=6, closing=CLOSING, told=told,
                later=["late"]) as reports:  # fmt: skip
        answered = [set(exchange.clients) for report in reports for exchange in report.exchanges]
    assert answered == [{"ada", "zoe"}] * 6
    assert any(text.startswith("late is refused: ") for text in told)
